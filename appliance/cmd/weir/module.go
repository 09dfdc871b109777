package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/sdk/guest"
	"github.com/weirhq/weir/wasm/manifest"
)

type moduleCmd struct {
	New        moduleNewCmd        `cmd:"" help:"Lay out a project for a module, from an example, with the SDK in it."`
	Build      moduleBuildCmd      `cmd:"" help:"Build a project with its language's own compiler."`
	Test       moduleTestCmd       `cmd:"" help:"Run a module here: its test vectors, a file of records, or records of a stream."`
	Keygen     moduleKeygenCmd     `cmd:"" help:"Make a key pair for signing modules."`
	Sign       moduleSignCmd       `cmd:"" help:"Sign a module together with its manifest."`
	Push       modulePushCmd       `cmd:"" help:"Upload a module to the box; it is tried there before it is accepted."`
	Activate   moduleActivateCmd   `cmd:"" help:"Make a version the active one."`
	Deactivate moduleDeactivateCmd `cmd:"" help:"Leave a module without an active version: consumers stop, deliveries wait."`
	Rollback   moduleRollbackCmd   `cmd:"" help:"Go back to the version that was active before."`
	Shadow     moduleShadowCmd     `cmd:"" help:"Run a version on live records without effect and compare it with the active one."`
	List       moduleListCmd       `cmd:"" help:"List the modules and their versions."`
	Stats      moduleStatsCmd      `cmd:"" help:"Show what a module has done, and where its consumers are."`
	Logs       moduleLogsCmd       `cmd:"" help:"Print the last lines a module has logged."`
	Resume     moduleResumeCmd     `cmd:"" help:"Let a consumer that halted at a record try again."`
	Rm         moduleRmCmd         `cmd:"" help:"Remove a version, or a module with all its versions."`
}

func modulePath(name string, more string) string { return "modules/" + url.PathEscape(name) + more }

// project is a module on this machine: a folder with module.yaml, or a .wasm
// file with its manifest beside it.
type project struct {
	dir      string
	manifest string // file
	wasm     string // file, perhaps not built yet
	language *guest.Language
}

// openProject finds out what is at a path.
func openProject(path string) (*project, error) {
	if filepath.Ext(path) == ".wasm" {
		dir := filepath.Dir(path)
		for _, name := range []string{path[:len(path)-len(".wasm")] + ".yaml", filepath.Join(dir, guest.Manifest)} {
			if exists(name) {
				return &project{dir: dir, manifest: name, wasm: path}, nil
			}
		}
		if _, err := os.Stat(path); err != nil {
			return nil, unreadable(path, err, "")
		}
		return nil, &fault.Error{Class: fault.Usage, Subject: path, Expect: "no manifest beside it; expecting " + guest.Manifest}
	}
	if _, err := os.Stat(path); err != nil {
		return nil, unreadable(path, err, "weir module new NAME")
	}
	p := &project{dir: path, manifest: filepath.Join(path, guest.Manifest)}
	if !exists(p.manifest) {
		return nil, &fault.Error{Class: fault.Usage, Subject: "module", Value: path, Expect: "no " + guest.Manifest + " in it", Try: "weir module new NAME"}
	}
	for _, l := range guest.Languages() {
		if exists(filepath.Join(path, filepath.FromSlash(l.Source))) {
			p.language = &l
			p.wasm = filepath.Join(path, filepath.FromSlash(l.Output))
			return p, nil
		}
	}
	found, err := filepath.Glob(filepath.Join(path, "*.wasm"))
	if err != nil || len(found) != 1 {
		return nil, &fault.Error{Class: fault.Usage, Subject: "module", Value: path, Expect: fmt.Sprintf("%d .wasm files and no source of a known language in it; expecting one", len(found)), Try: "the .wasm file instead of the folder"}
	}
	p.wasm = found[0]
	return p, nil
}

// read returns the module's bytes, its manifest's text, and the manifest.
func (p *project) read() (wasm, text []byte, m *manifest.Manifest, err error) {
	if text, err = readFile(p.manifest, ""); err != nil {
		return nil, nil, nil, err
	}
	if m, err = manifest.Parse(text); err != nil {
		return nil, nil, nil, &fault.Error{Class: fault.Usage, Subject: p.manifest, Err: err}
	}
	if wasm, err = readFile(p.wasm, "weir module build "+p.dir); err != nil {
		return nil, nil, nil, err
	}
	return wasm, text, m, nil
}

func (p *project) signature() string { return p.wasm + ".sig" }
