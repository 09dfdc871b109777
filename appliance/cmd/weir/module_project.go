package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/sdk/guest"
	"github.com/weirhq/weir/wasm/module"
)

type moduleNewCmd struct {
	Name     string `arg:"" help:"Name of the module: a-z, 0-9 and -."`
	Language string `help:"go, rust, c or assemblyscript." default:"go" short:"l"`
	Example  string `help:"Example to start from: filter, rename, router, downsample or anomaly." default:"filter"`
	Into     string `help:"Folder to make; the name if not given." placeholder:"FOLDER"`
}

func (c *moduleNewCmd) Run(a *app) error {
	l, err := guest.Lookup(c.Language)
	if err != nil {
		return &fault.Error{Class: fault.Usage, Subject: "--language", Err: err}
	}
	files, err := l.Project(c.Name, c.Example)
	if err != nil {
		return &fault.Error{Class: fault.Usage, Err: err}
	}
	dir := c.Into
	if dir == "" {
		dir = c.Name
	}
	if left, err := os.ReadDir(dir); err == nil && len(left) > 0 {
		return &fault.Error{Class: fault.Usage, Subject: dir, Expect: "there is something in it already", Try: "--into with another folder"}
	}
	var names []string
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return &fault.Error{Class: fault.Environment, Subject: path, Err: err}
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			return &fault.Error{Class: fault.Environment, Subject: path, Err: err}
		}
		names = append(names, f.Path)
	}
	out := struct {
		Folder   string   `json:"folder"`
		Language string   `json:"language"`
		Edit     string   `json:"edit"`
		Files    []string `json:"files"`
	}{dir, l.Name, l.Source, names}
	return a.emit(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s is a %s module, begun as the example %s (%s).\n", dir, l.Title, c.Example, plural(len(files), "file"))
		fmt.Fprintf(w, "Edit %s and %s, then:\n\n", filepath.Join(dir, l.Source), filepath.Join(dir, guest.Manifest))
		fmt.Fprintf(w, "  weir module build %s     needs %s\n  weir module test %s\n  weir module push %s --activate\n", dir, l.Needs, dir, dir)
	})
}

type moduleBuildCmd struct {
	Path string `arg:"" optional:"" default:"." help:"Folder of the project."`
}

func (c *moduleBuildCmd) Run(a *app) error {
	p, err := openProject(c.Path)
	if err != nil {
		return err
	}
	if p.language == nil {
		return &fault.Error{Class: fault.Usage, Subject: c.Path, Expect: "no source of a known language in it; nothing to build"}
	}
	steps, err := p.language.Build()
	if err != nil {
		return &fault.Error{Class: fault.Environment, Err: err}
	}
	for _, s := range steps {
		if s.Make != "" && exists(filepath.Join(p.dir, filepath.FromSlash(s.Make))) {
			continue
		}
		cmd := exec.CommandContext(a.ctx, s.Args[0], s.Args[1:]...)
		cmd.Dir, cmd.Env = p.dir, append(os.Environ(), s.Env...)
		bar := a.progress("build")
		said := bar.beside(a.err)
		cmd.Stdout, cmd.Stderr = said, said
		bar.during(strings.Join(s.Args, " "), func() { err = cmd.Run() })
		if err != nil {
			return &fault.Error{Class: fault.Runtime, Subject: strings.Join(s.Args, " "), Expect: "failed", Err: err}
		}
	}
	info, err := os.Stat(p.wasm)
	if err != nil {
		return &fault.Error{Class: fault.Runtime, Subject: p.wasm, Expect: "the build left no module", Err: err}
	}
	out := struct {
		Module string `json:"module"`
		Bytes  int64  `json:"bytes"`
	}{p.wasm, info.Size()}
	return a.emit(out, func(w io.Writer) { fmt.Fprintf(w, "%s, %s.\n", out.Module, size(out.Bytes)) })
}

type moduleKeygenCmd struct {
	File string `arg:"" optional:"" default:"weir-module-key.pem" help:"Where the private key goes; the public one gets .pub behind it."`
}

func (c *moduleKeygenCmd) Run(a *app) error {
	private, public, err := module.GenerateKey()
	if err != nil {
		return err
	}
	pub := c.File + ".pub"
	f, err := os.OpenFile(c.File, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return &fault.Error{Class: fault.Environment, Subject: c.File, Expect: "can't be made", Err: err}
	}
	_, err = f.Write(private)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.WriteFile(pub, public, 0o644)
	}
	if err != nil {
		return &fault.Error{Class: fault.Environment, Subject: c.File, Err: err}
	}
	key, err := module.ParsePublicKey(public)
	if err != nil {
		return err
	}
	out := struct {
		Private     string `json:"private"`
		Public      string `json:"public"`
		Fingerprint string `json:"fingerprint"`
	}{c.File, pub, module.Fingerprint(key)}
	return a.emit(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s is the private key: keep it off the box. %s is the public one, fingerprint %s.\n", out.Private, out.Public, out.Fingerprint)
		fmt.Fprintf(w, "A box that lists it takes what it signs:\n\n  wasm:\n    signatures: require\n    trusted_keys: [%s]\n", out.Public)
	})
}

type moduleSignCmd struct {
	Path string `arg:"" optional:"" default:"." help:"Folder of the project, or a .wasm file."`
	Key  string `required:"" help:"Private key, as module keygen wrote it." placeholder:"FILE"`
}

func (c *moduleSignCmd) Run(a *app) error {
	p, err := openProject(c.Path)
	if err != nil {
		return err
	}
	wasm, text, m, err := p.read()
	if err != nil {
		return err
	}
	sig, err := signWith(c.Key, wasm, text)
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.signature(), module.EncodeSignature(sig), 0o644); err != nil {
		return &fault.Error{Class: fault.Environment, Subject: p.signature(), Err: err}
	}
	out := struct {
		Module    string `json:"module"`
		Version   string `json:"version"`
		Signature string `json:"signature"`
	}{m.Name, m.Version, p.signature()}
	return a.emit(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s is signed with its manifest: %s. A change to either asks for a new signature.\n", out.Module, out.Version, out.Signature)
	})
}

func signWith(file string, wasm, text []byte) ([]byte, error) {
	pem, err := readFile(file, "weir module keygen")
	if err != nil {
		return nil, err
	}
	key, err := module.ParsePrivateKey(pem)
	if err != nil {
		return nil, &fault.Error{Class: fault.Usage, Subject: file, Err: err, Try: "weir module keygen"}
	}
	return module.Sign(key, wasm, text), nil
}
