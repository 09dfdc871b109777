// Package telemetry is what the box tells about itself: logs, metrics and its
// state to the service manager.
//
// It owns the form of a log line, the /metrics page and the protocol of
// sd_notify. It never measures on a hot path (the parts count for themselves and
// are asked when the page is read) and sends nothing anywhere by itself.
package telemetry

import (
	"io"
	"log/slog"
)

// Logger returns a logger that writes lines of the form ("text" or "json") to w,
// from the level on. The level can be changed while it runs.
func Logger(w io.Writer, form string, level *slog.LevelVar) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if form == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// Level is the slog level of a name of the configuration; an unknown name is info.
func Level(name string) slog.Level {
	var l slog.Level
	if l.UnmarshalText([]byte(name)) != nil {
		return slog.LevelInfo
	}
	return l
}
