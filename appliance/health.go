package appliance

import (
	"context"
	"sync/atomic"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/storage"
)

// health answers /healthz and /readyz, without identity. Healthy means that the
// process works and is worth keeping; ready means that it takes records now. A
// box with a full disk is healthy and not ready: a restart would not help it.
type health struct {
	store    *storage.Store
	stopping atomic.Bool
}

// alive is what the watchdog asks.
func (h *health) alive() error {
	h.store.State()
	return nil
}

func (h *health) healthz(_ context.Context, _ api.Request, res api.Response) {
	answer(res, 200, "ok")
}

func (h *health) readyz(_ context.Context, _ api.Request, res api.Response) {
	state := h.store.State()
	switch {
	case h.stopping.Load():
		answer(res, 503, "stopping")
	case !state.Writable:
		answer(res, 503, "not writable: "+state.Reason)
	default:
		answer(res, 200, "ready")
	}
}

func answer(res api.Response, status int, text string) {
	res.SetStatus(status)
	res.SetHeader("Content-Type", "text/plain; charset=utf-8")
	res.SetHeader("Cache-Control", "no-store")
	body := res.Body()
	*body = append(append((*body)[:0], text...), '\n')
}
