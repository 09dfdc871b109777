// Package guest holds the guest SDKs, so that `weir module new` can lay out a
// project that builds with no network and no registry: the SDK's source is copied
// into it, beside one of the examples to start from.
//
// It owns the layout of such a project and the commands that build it. The SDKs
// themselves are in the folders c, go, rust and assemblyscript; this package never
// compiles or runs anything.
package guest

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
)

// Files are the sources of the SDKs, their examples and the examples' manifests
// (vectors/EXAMPLE.yaml), under the same paths as in sdk/guest.
//
//go:embed c/weir.h c/flags c/examples go/weir/*.go go/examples rust/weir rust/Cargo.toml rust/.cargo/config.toml rust/examples
//go:embed assemblyscript/assembly assemblyscript/examples assemblyscript/package.json assemblyscript/package-lock.json assemblyscript/asconfig.json
//go:embed vectors templates
var Files embed.FS

// Manifest is the name of a project's manifest, in the project's folder.
const Manifest = "module.yaml"

// File is one file of a new project.
type File struct {
	Path string // slashes, relative to the project's folder
	Data []byte
}

// Language is a language with an SDK.
type Language struct {
	Name   string // as on the command line: c
	Title  string // as people write it: C
	Needs  string // what has to be installed to build, one line
	Source string // the file to edit first
	Output string // the module that a build leaves, relative to the project's folder
	sdk    map[string]string
	build  func(look func(string) (string, error)) ([]Command, error)
}

// Command is one step of a build, run in the project's folder.
type Command struct {
	Args []string // a program and its arguments
	Env  []string // NAME=value, in addition to the environment
	Make string   // a file this step makes: while it exists, the step may be left out; "" = always run it
}

// Languages lists the languages, in the order in which to offer them.
func Languages() []Language {
	return []Language{goLanguage(), rustLanguage(), cLanguage(), assemblyScriptLanguage()}
}

// Lookup returns the language of that name. The error names the languages there
// are.
func Lookup(name string) (Language, error) {
	var names []string
	for _, l := range Languages() {
		if l.Name == name {
			return l, nil
		}
		names = append(names, l.Name)
	}
	return Language{}, fmt.Errorf("language %q; expecting one of %s", name, strings.Join(names, ", "))
}

// Examples lists the examples a project can start from, the simplest first.
func Examples() []string { return []string{"filter", "rename", "router", "downsample", "anomaly"} }

var projectName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// Project returns the files of a new project called name, in the order of their
// paths: the example's source and manifest, the SDK, and what the build needs.
// name is the module's, 1 to 63 of a-z, 0-9 and -.
func (l Language) Project(name, example string) ([]File, error) {
	if !projectName.MatchString(name) {
		return nil, fmt.Errorf("module name %q; expecting 1 to 63 of a-z, 0-9 and -, not beginning with -", name)
	}
	if !slices.Contains(Examples(), example) {
		return nil, fmt.Errorf("example %q; expecting one of %s", example, strings.Join(Examples(), ", "))
	}
	manifest, err := Files.ReadFile("vectors/" + example + ".yaml")
	if err != nil {
		return nil, err
	}
	fill := strings.NewReplacer("EXAMPLE", example, "NAME", name)
	files := map[string][]byte{
		Manifest: bytes.Replace(manifest, []byte("\nname: "+example+"\n"), []byte("\nname: "+name+"\n"), 1),
	}
	for from, to := range l.sdk {
		if err := l.copy(files, fill.Replace(from), to); err != nil {
			return nil, err
		}
	}
	for from, to := range map[string]string{"README.md": "README.md", "gitignore": ".gitignore"} {
		text, err := Files.ReadFile("templates/" + from)
		if err != nil {
			return nil, err
		}
		files[to] = []byte(strings.NewReplacer("NAME", name, "SOURCE", l.Source, "NEEDS", l.Needs, "TITLE", l.Title).Replace(string(text)))
	}
	l.adapt(files, name)
	out := make([]File, 0, len(files))
	for p, data := range files {
		out = append(out, File{Path: p, Data: data})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return out, nil
}

// copy puts the file or folder `from` of Files under `to`.
func (l Language) copy(files map[string][]byte, from, to string) error {
	return fs.WalkDir(Files, from, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(p, "_test.go") {
			return err
		}
		data, err := Files.ReadFile(p)
		if err != nil {
			return err
		}
		files[path.Join(to, strings.TrimPrefix(p, from))] = data
		return nil
	})
}

// adapt changes what says where things are.
func (l Language) adapt(files map[string][]byte, name string) {
	replace := func(file, old, with string) {
		files[file] = bytes.ReplaceAll(files[file], []byte(old), []byte(with))
	}
	switch l.Name {
	case "go":
		files["go.mod"] = []byte("module " + name + "\n\ngo 1.24\n")
		replace("main.go", "github.com/weirhq/weir/sdk/guest/go/weir", name+"/weir")
	case "rust":
		replace("Cargo.toml", "\"NAME\"", "\""+name+"\"")
	case "assemblyscript":
		replace("assembly/module.ts", "../assembly/weir", "./weir")
		replace("package.json", "\"weir-guest\"", "\""+name+"\"")
		replace("package-lock.json", "\"weir-guest\"", "\""+name+"\"")
	}
}

// Build returns the commands that build a project of this language, in order.
// They leave Output. The error says what isn't installed.
func (l Language) Build() ([]Command, error) { return l.build(exec.LookPath) }

func (l Language) missing(program string) error {
	return fmt.Errorf("build %s module: %s is not on PATH; expecting %s", l.Title, program, l.Needs)
}

func goLanguage() Language {
	l := Language{
		Name: "go", Title: "Go", Needs: "Go 1.24 or newer", Source: "main.go", Output: "module.wasm",
		sdk: map[string]string{"go/weir": "weir", "go/examples/EXAMPLE/main.go": "main.go"},
	}
	l.build = func(look func(string) (string, error)) ([]Command, error) {
		if _, err := look("go"); err != nil {
			return nil, l.missing("go")
		}
		return []Command{{
			Args: []string{"go", "build", "-trimpath", "-ldflags=-s -w", "-buildmode=c-shared", "-o", l.Output, "."},
			Env:  []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"},
		}}, nil
	}
	return l
}

func rustLanguage() Language {
	l := Language{
		Name: "rust", Title: "Rust", Needs: "Rust 1.63 or newer with the target wasm32-unknown-unknown (rustup target add wasm32-unknown-unknown, or Debian's rustc, cargo and libstd-rust-dev-wasm32)",
		Source: "src/lib.rs", Output: "target/wasm32-unknown-unknown/release/module.wasm",
		sdk: map[string]string{
			"rust/weir": "weir", "rust/examples/EXAMPLE/src/lib.rs": "src/lib.rs", "rust/.cargo/config.toml": ".cargo/config.toml",
			"templates/Cargo.toml": "Cargo.toml",
		},
	}
	l.build = func(look func(string) (string, error)) ([]Command, error) {
		// Debian's compiler may have the target when the first one on PATH has not.
		for _, dir := range []string{"", "/usr/bin/"} {
			rustc, err := look(dir + "rustc")
			if err != nil || !hasWasmTarget(rustc) {
				continue
			}
			if cargo, err := look(dir + "cargo"); err == nil {
				return []Command{{
					Args: []string{cargo, "build", "--quiet", "--release", "--target", "wasm32-unknown-unknown"},
					Env:  []string{"RUSTC=" + rustc},
				}}, nil
			}
		}
		return nil, l.missing("rustc with the target wasm32-unknown-unknown")
	}
	return l
}

// hasWasmTarget tells whether rustc has the standard library of the target.
func hasWasmTarget(rustc string) bool {
	root, err := exec.Command(rustc, "--print", "sysroot").Output()
	if err != nil {
		return false
	}
	libs, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(root)), "lib/rustlib/wasm32-unknown-unknown/lib/libcore-*.rlib"))
	return err == nil && len(libs) > 0
}

func cLanguage() Language {
	l := Language{
		Name: "c", Title: "C", Needs: "clang 14 or newer and lld (Debian: clang-14 and lld-14)", Source: "module.c", Output: "module.wasm",
		sdk: map[string]string{"c/weir.h": "weir.h", "c/flags": "flags", "c/examples/EXAMPLE.c": "module.c"},
	}
	l.build = func(look func(string) (string, error)) ([]Command, error) {
		for _, version := range []string{"", "-19", "-18", "-17", "-16", "-15", "-14"} {
			if _, err := look("wasm-ld" + version); err != nil {
				continue
			}
			if clang, err := look("clang" + version); err == nil {
				return []Command{{Args: []string{clang, "@flags", "-o", l.Output, "module.c"}}}, nil
			}
		}
		return nil, l.missing("clang with a wasm-ld of the same version")
	}
	return l
}

func assemblyScriptLanguage() Language {
	l := Language{
		Name: "assemblyscript", Title: "AssemblyScript", Needs: "Node.js 18 or newer with npm, and the npm registry the first time",
		Source: "assembly/module.ts", Output: "module.wasm",
		sdk: map[string]string{
			"assemblyscript/assembly": "assembly", "assemblyscript/examples/EXAMPLE.ts": "assembly/module.ts",
			"assemblyscript/package.json": "package.json", "assemblyscript/package-lock.json": "package-lock.json",
			"assemblyscript/asconfig.json": "asconfig.json",
		},
	}
	l.build = func(look func(string) (string, error)) ([]Command, error) {
		if _, err := look("npm"); err != nil {
			return nil, l.missing("npm")
		}
		return []Command{
			{Args: []string{"npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"}, Make: "node_modules/.bin/asc"},
			{Args: []string{"node", "node_modules/assemblyscript/bin/asc.js", "assembly/module.ts", "--config", "asconfig.json", "-o", l.Output}},
		}, nil
	}
	return l
}
