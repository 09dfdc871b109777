//go:build !linux

package storage

import "github.com/cockroachdb/pebble/v2/vfs"

// dropPages does nothing: there is no call for it.
func dropPages(vfs.File) error { return nil }
