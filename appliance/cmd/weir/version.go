package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/weirhq/weir/storage/keyspace"
)

type versionCmd struct{}

// version is set by the release build: -ldflags "-X main.version=1.2.3".
var version = ""

type versionInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Format   int    `json:"data_format"` // of a directory it makes; newer ones it leaves alone
}

func buildInfo() versionInfo {
	v := versionInfo{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Format: keyspace.FormatVersion}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if v.Version == "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Commit = s.Value
		}
	}
	return v
}

func (c *versionCmd) Run(a *app) error {
	v := buildInfo()
	return a.emit(v, func(w io.Writer) {
		fmt.Fprintf(w, "weir %s (%s, %s)\n", v.Version, v.Go, v.Platform)
		if v.Commit != "" {
			fmt.Fprintf(w, "commit %s\n", v.Commit)
		}
		fmt.Fprintf(w, "data format %d\n", v.Format)
	})
}
