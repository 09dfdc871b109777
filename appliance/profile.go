package appliance

import (
	"context"
	"fmt"
	"net/url"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/weirhq/weir/appliance/api"
)

// maxProfile bounds a CPU profile.
const maxProfile = 5 * time.Minute

// profile serves /debug/pprof/NAME in the form that `go tool pprof` reads, to
// clients on this machine: profile (?seconds=30), heap, goroutine, allocs, mutex,
// block, threadcreate.
func profile(ctx context.Context, req api.Request, res api.Response) {
	if !req.RemoteAddr().Addr().Unmap().IsLoopback() {
		api.WriteError(res, &api.Refusal{Status: 403, Code: "AccessDenied", Message: "profiles are served to loopback clients only"})
		return
	}
	if !req.Identity().Allows("admin:Profile", "") {
		api.WriteError(res, &api.Refusal{Status: 403, Code: "AccessDenied", Message: "admin:Profile: not allowed for this access key"})
		return
	}
	name := strings.TrimPrefix(string(req.Path()), "/debug/pprof/")
	query, err := url.ParseQuery(string(req.RawQuery()))
	if err != nil {
		api.WriteError(res, &api.Refusal{Status: 400, Code: "InvalidQuery", Message: err.Error()})
		return
	}
	res.SetHeader("Content-Type", "application/octet-stream")
	if name == "profile" {
		err = profileCPU(ctx, query.Get("seconds"), res)
	} else if p := pprof.Lookup(name); p != nil {
		debug, _ := strconv.Atoi(query.Get("debug")) // 0, the binary form, unless asked
		err = p.WriteTo(res, debug)
	} else {
		api.NotFound(req, res)
	}
	if err != nil {
		api.WriteError(res, &api.Refusal{Status: 500, Code: "InternalFailure", Message: err.Error()})
	}
}

func profileCPU(ctx context.Context, seconds string, res api.Response) error {
	d := 30 * time.Second
	if n, err := strconv.Atoi(seconds); err == nil && n > 0 {
		d = min(time.Duration(n)*time.Second, maxProfile)
	}
	if err := pprof.StartCPUProfile(res); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer pprof.StopCPUProfile()
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	return nil
}
