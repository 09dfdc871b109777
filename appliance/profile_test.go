package appliance

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/apitest"
)

func TestProfilesAreForThisMachineOnly(t *testing.T) {
	admin := &api.Identity{Name: "root", Policy: api.FullAccess}
	for _, c := range []struct {
		from, path string
		who        *api.Identity
		status     int
		says       string
	}{
		{"127.0.0.1:9", "heap", admin, 200, ""},
		{"[::1]:9", "goroutine?debug=1", admin, 200, "goroutine profile:"},
		{"[::ffff:127.0.0.1]:9", "allocs", admin, 200, ""},
		{"192.0.2.7:9", "heap", admin, 403, "loopback clients only"},
		{"[2001:db8::7]:9", "heap", admin, 403, "loopback clients only"},
		{"127.0.0.1:9", "heap", &api.Identity{Name: "device"}, 403, "admin:Profile"},
		{"127.0.0.1:9", "nothing", admin, 404, "nothing"},
		{"127.0.0.1:9", "heap?debug=%zz", admin, 400, "InvalidQuery"},
	} {
		got := apitest.Do(t.Context(), api.HandlerFunc(profile), &apitest.Request{
			Verb: "GET", Target: "/debug/pprof/" + c.path, Remote: netip.MustParseAddrPort(c.from), Who: c.who,
		})
		if got.Status != c.status || !strings.Contains(string(got.Body), c.says) || len(got.Body) == 0 {
			t.Errorf("%s from %s: %d %.200q, want %d %q", c.path, c.from, got.Status, got.Body, c.status, c.says)
		}
	}
}

func TestProcessorIsProfiledForTheTimeAsked(t *testing.T) {
	admin := &api.Identity{Name: "root", Policy: api.FullAccess}
	got := apitest.Do(t.Context(), api.HandlerFunc(profile), &apitest.Request{
		Verb: "GET", Target: "/debug/pprof/profile?seconds=1", Remote: netip.MustParseAddrPort("127.0.0.1:9"), Who: admin,
	})
	if got.Status != 200 || !strings.HasPrefix(string(got.Body), "\x1f\x8b") { // gzip, as pprof has it
		t.Errorf("%d %.40q", got.Status, got.Body)
	}
}
