package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/weirhq/weir/appliance/admin"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/remote"
	"github.com/weirhq/weir/wasm/module"
)

type modulePushCmd struct {
	Path     string `arg:"" optional:"" default:"." help:"Folder of the project, or a .wasm file."`
	Key      string `help:"Sign with this private key; without it the .sig file beside the module is used if there is one." placeholder:"FILE"`
	Activate bool   `help:"Make it the active version at once." xor:"then"`
	Shadow   bool   `help:"Run it on live records without effect and compare it with the active version." xor:"then"`
}

func (c *modulePushCmd) Run(a *app) error {
	p, err := openProject(c.Path)
	if err != nil {
		return err
	}
	wasm, text, m, err := p.read()
	if err != nil {
		return err
	}
	sig, err := c.signature(p, wasm, text)
	if err != nil {
		return err
	}
	b, err := a.box()
	if err != nil {
		return err
	}
	info, err := upload(a, b, wasm, text, sig)
	if err != nil {
		return err
	}
	then, path := "not active yet", ""
	switch {
	case c.Activate:
		then, path = "active", "/activate"
	case c.Shadow:
		then, path = "running as a shadow of "+info.Active, "/shadow"
		if info.Active == "" {
			then = "a shadow, with nothing to compare it with until a version is active"
		}
	case info.Active == m.Version:
		then = "active"
	}
	if path != "" {
		if err := b.Call(a.ctx, "POST", modulePath(m.Name, path), admin.ModuleVersion{Version: m.Version}, &info); err != nil {
			return err
		}
	}
	return a.emit(info, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s is on the box (%s), %s.\n", m.Name, m.Version, size(int64(len(wasm))), then)
		for _, v := range info.Versions {
			if v.Version == m.Version && v.Warning != "" {
				fmt.Fprintf(w, "Warning: %s.\n", v.Warning)
			}
		}
		switch {
		case c.Shadow:
			fmt.Fprintf(w, "See what it does otherwise: weir module stats %s\n", m.Name)
		case info.Active != m.Version:
			fmt.Fprintf(w, "Switch over: weir module activate %s %s\n", m.Name, m.Version)
		}
	})
}

// signature makes or reads the signature; none is no error here: the box's
// policy decides.
func (c *modulePushCmd) signature(p *project, wasm, text []byte) ([]byte, error) {
	if c.Key != "" {
		return signWith(c.Key, wasm, text)
	}
	line, err := readFile(p.signature(), "")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sig, err := module.DecodeSignature(line)
	if err != nil {
		return nil, &fault.Error{Class: fault.Usage, Subject: p.signature(), Err: err}
	}
	return sig, nil
}

// upload sends a module piece by piece, then its manifest and signature.
func upload(a *app, b *remote.Box, wasm, text, sig []byte) (module.Info, error) {
	digest := sha256.Sum256(wasm)
	bar := a.progress("upload")
	defer bar.done()
	for n, at := 0, 0; at < len(wasm); n, at = n+1, at+module.ChunkBytes {
		piece := wasm[at:min(at+module.ChunkBytes, len(wasm))]
		res, err := b.Send(a.ctx, "PUT", fmt.Sprintf("module-pieces/%x/%d", digest, n), "application/octet-stream", piece)
		if err != nil {
			return module.Info{}, err
		}
		res.Body.Close()
		bar.step(int64(at+len(piece)), int64(len(wasm)), "bytes")
	}
	var info module.Info
	in := admin.ModuleAddition{Digest: hex.EncodeToString(digest[:]), Size: int64(len(wasm)), Manifest: string(bytes.Clone(text)), Signature: sig}
	var err error
	bar.during("the box compiles and tries it", func() { err = b.Call(a.ctx, "POST", "modules", in, &info) })
	return info, err
}
