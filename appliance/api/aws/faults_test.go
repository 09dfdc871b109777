package aws

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
)

func TestFaults(t *testing.T) {
	served := 0
	next := api.HandlerFunc(func(_ context.Context, _ api.Request, res api.Response) { served++ })
	f := func(faults Faults, draw float64, target string, status int, want string) {
		t.Helper()
		faults.Random = func() float64 { return draw }
		served = 0
		got := apitest.Do(context.Background(), InjectFaults(faults, next), &apitest.Request{
			Headers: http.Header{"X-Amz-Target": {target}, "Content-Type": {jsonType}},
		})
		if got.Status != status || !strings.Contains(string(got.Body), want) || (served == 1) != (status == 200) {
			t.Errorf("%s: %d %s, served %d times", target, got.Status, got.Body, served)
		}
	}
	f(Faults{}, 0, "Kinesis_20131202.PutRecords", 200, "")
	f(Faults{Throttle: 10}, 0.0999, "Kinesis_20131202.PutRecords", 400, `"ProvisionedThroughputExceededException"`)
	f(Faults{Throttle: 10}, 0.1, "Kinesis_20131202.PutRecords", 200, "")
	f(Faults{Throttle: 10}, 0, "Kinesis_20131202.ListShards", 400, `"LimitExceededException"`)
	f(Faults{Throttle: 10}, 0, "Firehose_20150804.PutRecordBatch", 503, `"ServiceUnavailableException"`)
	f(Faults{Throttle: 10, Operations: []string{"PutRecord"}}, 0, "Kinesis_20131202.PutRecords", 200, "")
	f(Faults{Fail: 100}, 0.99, "Kinesis_20131202.PutRecords", 500, `"InternalFailure"`)
	f(Faults{ExpireIterators: 100}, 0, "Kinesis_20131202.GetRecords", 400, `"ExpiredIteratorException"`)
	f(Faults{ExpireIterators: 100}, 0, "Kinesis_20131202.PutRecord", 200, "")
	f(Faults{Throttle: 100}, 0, "", 200, "")

	for _, bad := range []Faults{{Throttle: -1}, {Fail: 101}, {Delay: 5, DelayBy: time.Hour}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if err := (&Faults{Throttle: 100, Delay: 1, DelayBy: time.Second}).Validate(); err != nil {
		t.Error(err)
	}
	synctest.Test(t, func(t *testing.T) {
		from := time.Now()
		f(Faults{Delay: 100, DelayBy: time.Second}, 0.5, "Kinesis_20131202.PutRecords", 200, "")
		if d := time.Since(from); d != 500*time.Millisecond {
			t.Errorf("delayed by %v", d)
		}
	})
}
