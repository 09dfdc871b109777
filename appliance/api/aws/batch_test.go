package aws

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

type putRecordsIn struct {
	Records []struct {
		Data            []byte  `aws:"required,shape=Blob"`
		ExplicitHashKey *string `aws:"shape=HashKey"`
		PartitionKey    *string `aws:"required,shape=PartitionKey"`
	} `aws:"required,shape=Entries"`
	StreamName *string `aws:"shape=Stream"`
	StreamARN  *string
	StreamId   *string
	DryRun     bool
}

type putRecordIn struct {
	StreamName                *string `aws:"required,shape=Stream"`
	Data                      []byte  `aws:"required,shape=Blob"`
	PartitionKey              *string `aws:"shape=PartitionKey"`
	ExplicitHashKey           *string `aws:"shape=HashKey"`
	SequenceNumberForOrdering *string
	DryRun                    *bool
}

var putModel = NewModel(Shapes{
	"Stream":       {Min: At(1), Max: At(128), Pattern: `[a-zA-Z0-9_.-]+`},
	"Blob":         {Max: At(1 << 20)},
	"HashKey":      {Pattern: `0|([1-9]\d{0,38})`},
	"PartitionKey": {Min: At(1), Max: At(6)},
	"Entries":      {Min: At(1), Max: At(500)},
})

var (
	putRecords = NewBatchSchema[putRecordsIn](putModel)
	putRecord  = NewBatchSchema[putRecordIn](putModel)
)

// viaBatch parses in place and copies the result out.
func viaBatch[In any](s *BatchSchema[In], enc Encoding, body []byte) (string, error) {
	b, err := s.Parse(enc, body)
	if err != nil {
		return "", err
	}
	defer b.Release()
	out := fmt.Sprintf("%q %q %q %v", b.StreamName, b.StreamARN, b.SequenceNumberForOrdering, b.DryRun)
	for i := range b.Records {
		rec := &b.Records[i]
		data := make([]byte, rec.Data.Len())
		if err := rec.Data.Decode(data); err != nil {
			return "", err
		}
		out += fmt.Sprintf(" {%q %q %q}", rec.PartitionKey, rec.ExplicitHashKey, data)
	}
	return out, nil
}

func str(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

// viaDecode does the same by the general way.
func viaDecode(enc Encoding, body []byte) (string, error) {
	var in putRecordsIn
	if err := putModel.Decode(enc, body, &in); err != nil {
		return "", err
	}
	out := fmt.Sprintf("%q %q %q %v", str(in.StreamName), str(in.StreamARN), "", in.DryRun)
	for _, r := range in.Records {
		out += fmt.Sprintf(" {%q %q %q}", str(r.PartitionKey), str(r.ExplicitHashKey), r.Data)
	}
	return out, nil
}

// viaEncodingJSON does the same with the standard library, which knows no
// constraints and takes invalid UTF-8. Member names are compared exactly.
func viaEncodingJSON(body []byte) (string, error) {
	var top map[string]json.RawMessage
	if err := json.Unmarshal(body, &top); err != nil {
		return "", err
	}
	text := func(m map[string]json.RawMessage, name string) (s string) {
		_ = json.Unmarshal(m[name], &s)
		return s
	}
	var dry bool
	_ = json.Unmarshal(top["DryRun"], &dry)
	out := fmt.Sprintf("%q %q %q %v", text(top, "StreamName"), text(top, "StreamARN"), "", dry)
	var records []map[string]json.RawMessage
	if err := json.Unmarshal(top["Records"], &records); err != nil {
		return "", err
	}
	for _, r := range records {
		data, err := base64.StdEncoding.DecodeString(text(r, "Data"))
		if err != nil {
			return "", err
		}
		out += fmt.Sprintf(" {%q %q %q}", text(r, "PartitionKey"), text(r, "ExplicitHashKey"), data)
	}
	return out, nil
}

// sameError compares what a client sees. What breaks both the rules of JSON and
// those of base64 in one string may be called either.
func sameError(inPlace, general error) bool {
	if inPlace == nil || general == nil {
		return inPlace == general
	}
	a, b := AsError(inPlace), AsError(general)
	return a.Kind == b.Kind && (a.Message == b.Message || b.Message == "" && strings.Contains(a.Message, "converted to a Blob"))
}

func checkPutRecords(t *testing.T, body []byte) {
	t.Helper()
	got, gotErr := viaBatch(putRecords, JSON, body)
	want, wantErr := viaDecode(JSON, body)
	if got != want || !sameError(gotErr, wantErr) {
		t.Fatalf("%q\nin place: %s, %v\n general: %s, %v", body, got, gotErr, want, wantErr)
	}
	if errors.Is(gotErr, InternalFailure) {
		t.Fatalf("%q: %v", body, gotErr)
	}
	std, stdErr := viaEncodingJSON(body)
	if gotErr == nil && (stdErr != nil || std != got) {
		t.Fatalf("%q\nin place: %s\nencoding/json: %s, %v", body, got, std, stdErr)
	}
	if e := AsError(gotErr); gotErr != nil && e.Kind == Serialization && e.Message == "" &&
		string(bytes.TrimSpace(body)) != "null" &&
		json.Valid(body) && utf8.Valid(body) && !bytes.Contains(body, []byte(`\u`)) && bytes.Count(body, []byte(`[`))+bytes.Count(body, []byte(`{`)) < maxDepth {
		t.Fatalf("%q is JSON and was refused: %v", body, e)
	}
}

var putRecordsSeeds = []string{
	`{"StreamName":"s","Records":[{"Data":"aGVsbG8=","PartitionKey":"k"}]}`,
	"\t{ \"Records\" : [ { \"PartitionKey\" : \"k\\u00e9\\n\" , \"Data\" : \"\" } , {\"Data\":\"YQ==\",\"PartitionKey\":\"z\",\"ExplicitHashKey\":\"0\"}]\r\n, \"StreamARN\":\"arn\" } \n",
	`{"Records":[{"Data":"AA\/\u002b","PartitionKey":"k"}],"StreamName":"s","DryRun":true}`,
	`{"Records":[{"Data":"!","Data":"AAAA","PartitionKey":"x","PartitionKey":"k"}],"Records":[{"PartitionKey":"last","Data":"AAAA"}]}`,
	`{"Records":[{"Data":"AAAA","PartitionKey":"k","Unknown":{"a":[1,-2.5e+3,true,null,"\"}"]}}],"StreamId":null,"Other":[[]]}`,
	`{"Records":[],"Records":[{"Data":"","PartitionKey":"k"}]}`,
	`{"Records":[{"Data":"AAAA","PartitionKey":"k"}],"Records":[]}`,
	`{"Records":[{"Data":"!!!!","PartitionKey":"k"}],"Records":[{"Data":"AAAA","PartitionKey":"k"}]}`,
	`{"Records":[{"Data":"!!!!","Data":"AAAA","PartitionKey":"muchtoolong","PartitionKey":"k"}]}`,
	`{"Records":[{"Data":"AAAA","Data":null,"PartitionKey":"k"}],"Records":null,"Records":[{"PartitionKey":"k","Data":"AQ==","ExplicitHashKey":"5","ExplicitHashKey":null}]}`,
	`{"DryRun":true,"DryRun":null,"StreamName":"bad name","StreamName":"s","StreamId":"x","StreamId":null,"Records":[{"Data":"AAAA","PartitionKey":"k\u00e9"}]}`,
	`{"Records":[{"Data":null,"PartitionKey":"k"}]}`,
	`{"Records":[{"Data":"AAAA","PartitionKey":null}]}`,
	`{"Records":[{"Data":"AAAA","PartitionKey":"k","ExplicitHashKey":null}],"StreamName":null}`,
	`{"Records":[{"Data":"AAAA","PartitionKey":"k","ExplicitHashKey":"01"}]}`,
	`{"Records":[{"Data":"AAAA","PartitionKey":"k","ExplicitHashKey":"340282366920938463463374607431768211455"}]}`,
	`{"Records":[{"Data":"AAAA","PartitionKey":""}]}`,
	`{"Records":[{"Data":"AAAA","PartitionKey":"ééééééé"}]}`,
	`{"Records":[{"Data":"AAAA","PartitionKey":"éééééé"}]}`,
	`{"Records":[]}`, `{"Records":null}`, `{"Records":{}}`, `{"Records":[1]}`, `{"Records":[null]}`, `{}`, `[]`, `null`, `1`, `"x"`, ``, ` `,
	`{"Records":[{"Data":"AAA","PartitionKey":"k"}]}`,
	`{"Records":[{"Data":"AA=A","PartitionKey":"k"}]}`,
	`{"Records":[{"Data":"AAB=","PartitionKey":"k"}]}`,
	`{"Records":[{"Data":"A A=","PartitionKey":"k"}]}`,
	`{"Records":[{"Data":"AAAA\nAAA","PartitionKey":"k"}]}`,
	"{\"Records\":[{\"Data\":\"AAA\n\",\"PartitionKey\":\"k\"}]}",
	"{\"Records\":[{\"Data\":\"AAAA\",\"PartitionKey\":\"k\xff\"}]}",
	"{\"Records\":[{\"Data\":\"AAA\xff\",\"PartitionKey\":\"k\"}]}",
	`{"Records":[{"Data":"AAAA","PartitionKey":"\ud83d\ude00"}]}`,
	`{"Records":[{"Data":"AAAA","PartitionKey":"\ud83d"}]}`,
	`{"Records":[{"Data":"AAAA","PartitionKey":"\ude00\ud83d"}]}`,
	`{"Records":[{"Data":"AAAA","PartitionKey":"k"},]}`,
	`{"Records":[{"Data":"AAAA","PartitionKey":"k",}]}`,
	`{"Records":[{"Data":"AAAA" "PartitionKey":"k"}]}`,
	`{"Records":[{"Data":"AAAA","PartitionKey":"k"}]} {}`,
	`{"Records":[{"Data":"AAAA","PartitionKey":"k"}`,
	`{"Records":[{"Data":"AAAA`, `{"Records":[{"Data":"AAAA\`, `{"Records":[{"Data":"AAAA\"`, `{"Records":[{"Data":5,"PartitionKey":"k"}]}`,
	`{"Records":[{"Data":"AAAA","PartitionKey":5}],"StreamName":{}}`,
	`{"StreamName":"bad name","Records":[{"Data":"!!!!","PartitionKey":"k"}]}`,
	`{"StreamName":"bad name","Records":[{"Data":"AAAA","PartitionKey":"muchtoolong"}]}`,
	`{"records":[{"data":"AAAA"}],"Records":[{"data":"x","Data":"AAAA","PartitionKey":"k"}]}`,
	`{"DryRun":1,"Records":[{"Data":"AAAA","PartitionKey":"k"}]}`,
	`{"x":01}`, `{"x":1.}`, `{"x":-}`, `{"x":1e999,"Records":[{"Data":"AAAA","PartitionKey":"k"}]}`, `{"x":tru}`, `{"\u0052ecords":[{"Data":"AAAA","PartitionKey":"k"}]}`,
}

func TestPutRecordsInPlaceIsTheGeneralWay(t *testing.T) {
	for _, s := range putRecordsSeeds {
		checkPutRecords(t, []byte(s))
	}
	checkPutRecords(t, []byte(`{"Records":[`+strings.Repeat(`{"Data":"AAAA","PartitionKey":"k"},`, 499)+`{"Data":"AAAA","PartitionKey":"k"}]}`))
	checkPutRecords(t, []byte(`{"Records":[`+strings.Repeat(`{"Data":"AAAA","PartitionKey":"k"},`, 500)+`{"Data":"AAAA","PartitionKey":"k"}]}`))
	checkPutRecords(t, []byte(strings.Repeat(`[`, 10000)))
	checkPutRecords(t, []byte(`{"a":`+strings.Repeat(`[`, maxDepth-2)+strings.Repeat(`]`, maxDepth-2)+`}`))
}

// TestPutRecordsGenerated writes bodies in every legal way and breaks some.
func TestPutRecordsGenerated(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		body := generatePutRecords(rng)
		checkPutRecords(t, body)
		if rng.IntN(2) == 0 {
			body[rng.IntN(len(body))] = byte(rng.Uint32())
			checkPutRecords(t, body)
		}
	}
}

func generatePutRecords(rng *rand.Rand) []byte {
	var b []byte
	space := func() {
		for rng.IntN(4) == 0 {
			b = append(b, " \t\r\n"[rng.IntN(4)])
		}
	}
	text := func(s string) {
		space()
		b = append(b, '"')
		for _, r := range s {
			switch {
			case rng.IntN(8) == 0 && r < 0x10000:
				b = fmt.Appendf(b, `\u%04x`, r)
			case r == '/' && rng.IntN(2) == 0:
				b = append(b, `\/`...)
			default:
				b = utf8.AppendRune(b, r)
			}
		}
		b = append(b, '"')
		space()
	}
	members := func(ms []func()) {
		space()
		b = append(b, '{')
		for i, at := range rng.Perm(len(ms)) {
			if i > 0 {
				b = append(b, ',')
			}
			ms[at]()
		}
		b = append(b, '}')
		space()
	}
	member := func(name string, value func()) func() {
		return func() { text(name); b = append(b, ':'); value() }
	}
	texts := func(name, s string) func() { return member(name, func() { text(s) }) }
	junk := func() {
		b = append(b, [...]string{`null`, `{"a":{}}`, `[1,"x"]`, `-0.5e1`, `"q\"\\"`}[rng.IntN(5)]...)
	}
	record := func() {
		data := make([]byte, rng.IntN(40))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		ms := []func(){texts("Data", base64.StdEncoding.EncodeToString(data)), texts("PartitionKey", "kéy"[:rng.IntN(2)*2+1])}
		if rng.IntN(3) == 0 {
			ms = append(ms, texts("ExplicitHashKey", fmt.Sprint(rng.Uint64())))
		}
		if rng.IntN(5) == 0 {
			ms = append(ms, member("Other", junk))
		}
		if rng.IntN(9) == 0 {
			ms = append(ms, member("ExplicitHashKey", func() { b = append(b, "null"...) }))
		}
		members(ms)
	}
	members([]func(){
		texts("StreamName", "stream"), member("Junk", junk), member("DryRun", func() { b = append(b, "true"...) }),
		member("Records", func() {
			b = append(b, '[')
			for i := range 1 + rng.IntN(4) {
				if i > 0 {
					b = append(b, ',')
				}
				record()
			}
			b = append(b, ']')
		}),
	})
	return b
}

func FuzzPutRecordsJSON(f *testing.F) {
	for _, s := range putRecordsSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(checkPutRecords)
}

func putRecordsCBOR() []byte {
	w := Writer{Encoding: CBOR}
	w.BeginMap()
	w.Key("Records")
	w.BeginList()
	for i := range 3 {
		w.BeginMap()
		w.Key("Data")
		w.Blob([]byte{1, 2, byte(i)})
		w.Key("PartitionKey")
		w.String("k")
		w.EndMap()
	}
	w.EndList()
	w.Key("StreamName")
	w.String("s")
	w.EndMap()
	return w.Buf
}

func FuzzPutRecordsCBOR(f *testing.F) {
	f.Add(putRecordsCBOR())
	f.Add([]byte("\xa2\x67Records\x81\xa2\x64Data\x5f\x41a\x41b\xff\x6cPartitionKey\x61k\x66DryRun\xf5"))
	f.Add([]byte("\xbf\x67Records\xf6\xff"))
	f.Add([]byte("\xa2\x67Records\x80\x67Records\x81\xa2\x64Data\x5f\x41a\x41b\xff\x6cPartitionKey\x61k"))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, gotErr := viaBatch(putRecords, CBOR, body)
		want, wantErr := viaDecode(CBOR, body)
		if got != want || fmt.Sprint(gotErr) != fmt.Sprint(wantErr) {
			t.Fatalf("%x\nin place: %s, %v\n general: %s, %v", body, got, gotErr, want, wantErr)
		}
	})
}

func TestPutRecordHasItsRecordAtTheTop(t *testing.T) {
	got, err := viaBatch(putRecord, JSON, []byte(`{"StreamName":"s","Data":"AQ==","PartitionKey":"k","SequenceNumberForOrdering":"5","DryRun":true}`))
	if want := `"s" "" "5" true {"k" "" "\x01"}`; err != nil || got != want {
		t.Errorf("%s, %v", got, err)
	}
	_, err = viaBatch(putRecord, JSON, []byte(`{"Data":"AQ=="}`))
	if !errors.Is(err, Validation) || !strings.Contains(err.Error(), "Value null at 'streamName'") {
		t.Error(err)
	}
	if got, err := viaBatch(putRecords, CBOR, putRecordsCBOR()); err != nil || got != `"s" "" "" false {"k" "" "\x01\x02\x00"} {"k" "" "\x01\x02\x01"} {"k" "" "\x01\x02\x02"}` {
		t.Errorf("%s, %v", got, err)
	}
}

func benchBody(n int) []byte {
	data := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte(`{"sensor":"t-17","v":21.75}`), 8)[:200])
	var b bytes.Buffer
	b.WriteString(`{"StreamName":"sensors","Records":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"Data":"%s","PartitionKey":"k%d"}`, data, i)
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

func parseAndDecode(tb testing.TB, body, dst []byte) {
	b, err := putRecords.Parse(JSON, body)
	if err != nil {
		tb.Fatal(err)
	}
	for i := range b.Records {
		if err := b.Records[i].Data.Decode(dst[:b.Records[i].Data.Len()]); err != nil {
			tb.Fatal(err)
		}
	}
	b.Release()
}

func TestPutRecordsAllocatesNothing(t *testing.T) {
	body, dst := benchBody(500), make([]byte, 200)
	if n := testing.AllocsPerRun(50, func() { parseAndDecode(t, body, dst) }); n > 2 { // the pool may be emptied by a collection
		t.Errorf("%v allocations for 500 records", n)
	}
}

func BenchmarkPutRecordsParse(b *testing.B) {
	body, dst := benchBody(500), make([]byte, 200)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		parseAndDecode(b, body, dst)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/record")
}

func TestBase64IsTheStandardsStrictly(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		data := make([]byte, rng.IntN(60))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		text := []byte(base64.StdEncoding.EncodeToString(data))
		if len(text) > 0 && rng.IntN(2) == 0 {
			text[rng.IntN(len(text))] = "=AB\n+/-_\x00\xff"[rng.IntN(10)]
		}
		want, wantErr := strictBase64.DecodeString(string(text))
		if bytes.ContainsAny(text, "\r\n") {
			wantErr = errors.New("line break")
		}
		got := make([]byte, base64Len(text))
		n, err := decodeBase64(got, text)
		if (err == nil) != (wantErr == nil) || err == nil && (n != len(want) || !bytes.Equal(got, want)) {
			t.Fatalf("%q: %q, %v, want %q, %v", text, got, err, want, wantErr)
		}
	}
}

func BenchmarkBase64(b *testing.B) {
	src := []byte(base64.StdEncoding.EncodeToString(make([]byte, 200)))
	dst := make([]byte, 200)
	b.Run("ours", func(b *testing.B) {
		for b.Loop() {
			_, _ = decodeBase64(dst, src)
		}
	})
	b.Run("encoding/base64", func(b *testing.B) {
		for b.Loop() {
			_, _ = strictBase64.Decode(dst, src)
		}
	})
}
