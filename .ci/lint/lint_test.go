package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/weirhq/weir"

// root is the repository, as seen from this package.
const root = "../.."

// forbidden are the edges that the design rules out. A package whose path
// begins with from must not import one whose path begins with to.
var forbidden = []struct{ from, to, except, why string }{
	{"storage", "wasm", "", "the log knows nothing of modules: a store can be used, and tested, without a runtime"},
	{"storage", "appliance", "", "the log knows nothing of HTTP, configuration or services"},
	{"wasm", "storage", "", "wasm declares the small interfaces it needs; appliance connects them"},
	{"wasm", "appliance", "", "modules know nothing of HTTP, configuration or services"},
	{"storage/record", "storage", "storage/record", "record is a leaf: every part of the log may import it"},
	{"storage/block", "storage", "storage/block,storage/record", "the block codec is a leaf: it is read by tools without a store"},
	{"wasm/abi", "wasm", "wasm/abi", "the contract is a leaf: guests of every kind are built from it"},
	{"wasm/meter", "wasm", "wasm/meter,wasm/abi", "the rewriter is a leaf: it is fuzzed and compared without a runtime"},
	{"sdk/guest", "storage", "", "a guest sees the contract only"},
	{"sdk/guest", "appliance", "", "a guest sees the contract only"},
	{"sdk/client", "storage", "", "the client is for other people's programs: it must not pull ours in"},
	{"sdk/client", "wasm", "", "the client is for other people's programs: it must not pull ours in"},
	{"sdk/client", "appliance", "", "the client is for other people's programs: it must not pull ours in"},
	{"appliance", "benchmarks", "", "nobody imports the benchmarks"},
	{"appliance/listen", "appliance/api/kinesis", "", "the listener carries exchanges and knows no protocol"},
	{"appliance/listen", "appliance/api/firehose", "", "the listener carries exchanges and knows no protocol"},
	{"appliance/listen", "appliance/api/plain", "", "the listener carries exchanges and knows no protocol"},
	{"appliance/api", "appliance/listen", "", "handlers see an exchange, whatever carried it"},
	{"appliance/api", "appliance/config", "", "handlers get options; appliance maps the configuration to them"},
	{"appliance/listen", "appliance/config", "", "the listener gets options; appliance maps the configuration to them"},
	{"appliance/delivery", "appliance/config", "", "delivery gets options; appliance maps the configuration to them"},
	{"appliance/delivery", "appliance/sink", "", "delivery declares Sink; the kinds are above it"},
	{"appliance/delivery", "appliance/api", "", "delivery is not an HTTP service"},
	{"appliance/sink", "appliance/config", "", "each sink has its own settings"},
	{"appliance/consume", "appliance/config", "", "consume gets options; appliance maps the configuration to them"},
	{"appliance/config", "storage", "", "settings are values: a configuration is checked without a store"},
	{"appliance/config", "wasm", "", "settings are values: a configuration is checked without a runtime"},
	{"appliance/fault", "appliance", "appliance/fault", "the form of an error is a leaf"},
}

// goFile is one parsed source file.
type goFile struct {
	dir, path string // below the repository, with forward slashes
	test      bool
	set       *token.FileSet
	ast       *ast.File
}

func (f *goFile) at(n ast.Node) string {
	return f.path + ":" + strconv.Itoa(f.set.Position(n.Pos()).Line)
}

// skipDirs are folders with nothing of ours in them.
var skipDirs = []string{".git", "node_modules", "target", "dist", "bin", ".cache", "testdata"}

// copied is other people's code, kept as it is.
const copied = "appliance/cmd/internal/kong"

// files calls fn for each file of ours whose name ends so.
func files(t *testing.T, suffix string, fn func(path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (slices.Contains(skipDirs, d.Name()) || strings.HasSuffix(filepath.ToSlash(p), copied)) {
			return fs.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(p, suffix) {
			fn(filepath.ToSlash(strings.TrimPrefix(p, root+string(filepath.Separator))))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// source returns every Go file of ours.
func source(t *testing.T) []*goFile {
	t.Helper()
	var all []*goFile
	files(t, ".go", func(p string) {
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, filepath.Join(root, p), nil, parser.ParseComments)
		if err != nil {
			t.Error(err)
			return
		}
		all = append(all, &goFile{dir: path.Dir(p), path: p, test: strings.HasSuffix(p, "_test.go"), set: set, ast: parsed})
	})
	if len(all) < 20 {
		t.Fatalf("%d Go files below %s: this is not the repository", len(all), root)
	}
	return all
}

func within(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

func withinAny(p, folders string) bool {
	return folders != "" && slices.ContainsFunc(strings.Split(folders, ","), func(f string) bool { return within(p, f) })
}

func TestImportsGoOneWay(t *testing.T) {
	for _, f := range source(t) {
		for _, imp := range f.ast.Imports {
			name, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			to, ours := strings.CutPrefix(name, module+"/")
			if !ours {
				continue
			}
			if (within(to, "appliance/cmd") && !within(f.dir, "appliance/cmd")) || (within(to, "benchmarks") && !within(f.dir, "benchmarks")) {
				t.Errorf("%s imports %s: nobody imports commands and benchmarks", f.at(imp), to)
			}
			if f.test { // a test may use what the package it tests may not
				continue
			}
			for _, rule := range forbidden {
				if within(f.dir, rule.from) && within(to, rule.to) && !withinAny(to, rule.except) {
					t.Errorf("%s imports %s: %s", f.at(imp), to, rule.why)
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range source(t) {
		if f.test {
			continue
		}
		doc := strings.TrimSpace(f.ast.Doc.Text())
		ok := strings.HasPrefix(doc, "Package "+f.ast.Name.Name+" ") || (f.ast.Name.Name == "main" && (strings.HasPrefix(doc, "Command ") || strings.HasPrefix(doc, "The ")))
		documented[f.dir] = documented[f.dir] || ok
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s: no package comment; expecting what it is, what it owns and what it never does", dir)
		}
	}
}

func TestExportedNamesAreDocumented(t *testing.T) {
	for _, f := range source(t) {
		if f.test || f.ast.Name.Name == "main" {
			continue
		}
		for _, d := range f.ast.Decls {
			for _, name := range undocumented(d) {
				t.Errorf("%s: %s is exported and has no comment", f.at(d), name)
			}
		}
	}
}

// undocumented returns the exported names of a declaration that have neither a
// comment of their own nor one of their group.
func undocumented(d ast.Decl) []string {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
			return []string{d.Name.Name}
		}
	case *ast.GenDecl:
		if d.Doc != nil {
			return nil
		}
		var names []string
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && s.Doc == nil && s.Comment == nil {
					names = append(names, s.Name.Name)
				}
			case *ast.ValueSpec:
				if s.Doc == nil && s.Comment == nil && s.Names[0].IsExported() {
					names = append(names, s.Names[0].Name)
				}
			}
		}
		return names
	}
	return nil
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	expr := d.Recv.List[0].Type
	for {
		switch x := expr.(type) {
		case *ast.StarExpr:
			expr = x.X
		case *ast.IndexExpr:
			expr = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return true
		}
	}
}

// selector returns "pkg.Name" of a selector expression.
func selector(n ast.Node) string {
	if s, ok := n.(*ast.SelectorExpr); ok {
		if x, ok := s.X.(*ast.Ident); ok {
			return x.Name + "." + s.Sel.Name
		}
	}
	return ""
}

func TestNothingIsWiredBehindTheReadersBack(t *testing.T) {
	for _, f := range source(t) {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: init runs because of an import; expecting a call that can be read", f.at(fn))
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch s := selector(n); {
			case s == "fasthttp.RequestCtx" && !within(f.dir, "appliance/listen") && !within(f.dir, "benchmarks"): // which measure fasthttp alone
				t.Errorf("%s: RequestCtx dies with its handler; only appliance/listen may hold one", f.at(n))
			case (s == "os.Getenv" || s == "os.LookupEnv" || s == "os.Environ") && !f.test && !mayReadEnvironment(f.dir):
				t.Errorf("%s: the environment is read by commands and handed down as options", f.at(n))
			}
			return true
		})
	}
}

func mayReadEnvironment(dir string) bool {
	return within(dir, "appliance/cmd") || within(dir, "benchmarks") || within(dir, "sdk") || within(dir, ".ci") ||
		within(dir, "appliance/sink/sinktest") || // hands its own on to the servers that it starts
		within(dir, "wasm/host") // marks the child process that it starts to compile
}

func TestTestsWaitForFactsAndAreNotSkipped(t *testing.T) {
	for _, f := range source(t) {
		if !f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch selector(n) {
			case "time.Sleep":
				t.Errorf("%s: a sleep is too long or too short; expecting to wait for the condition, with a deadline", f.at(n))
			case "t.Skip", "t.Skipf", "t.SkipNow", "b.Skip", "b.Skipf":
				t.Errorf("%s: a test that is skipped proves nothing; expecting it to run or to fail", f.at(n))
			}
			return true
		})
	}
}

var (
	unfinished = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK)\b`)
	elsewhere  = regexp.MustCompile(`(^|[\s"'=(:])(/work/|/root/|/home/)`)
)

// TestParsersOfTheFrontDoorKeepSeeds: what fuzzing has found worth keeping is
// replayed by every run of the tests, not only where the cache of a long run is.
func TestParsersOfTheFrontDoorKeepSeeds(t *testing.T) {
	targets := 0
	for _, f := range source(t) {
		if !f.test || !withinAny(f.dir, "appliance/listen,appliance/dn,appliance/api/aws,appliance/api/kinesis,appliance/api/plain") {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(fn.Name.Name, "Fuzz") {
				continue
			}
			targets++
			if seeds, err := filepath.Glob(filepath.Join(root, f.dir, "testdata/fuzz", fn.Name.Name, "*")); err != nil || len(seeds) == 0 {
				t.Errorf("%s: no seeds in testdata/fuzz (%v); expecting the inputs that the fuzzer found worth keeping", f.at(fn), err)
			}
		}
	}
	if targets == 0 {
		t.Error("no fuzz target was found")
	}
}

func TestNothingIsLeftForLater(t *testing.T) {
	for _, suffix := range []string{".go", ".md", ".sh", ".yaml", ".yml", ".c", ".h", ".rs", ".ts", "Makefile", ".ci/run"} {
		files(t, suffix, func(p string) {
			if within(p, ".ci/lint") {
				return
			}
			data, err := os.ReadFile(filepath.Join(root, p))
			if err != nil {
				t.Error(err)
				return
			}
			n := 0
			for line := range strings.Lines(string(data)) {
				n++
				if m := unfinished.FindString(line); m != "" {
					t.Errorf("%s:%d: %s; expecting it done, or refused with a clear error and named in the README", p, n, m)
				}
				if m := elsewhere.FindString(line); m != "" {
					t.Errorf("%s:%d: %q is a path of one machine", p, n, m)
				}
			}
		})
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func TestMarkdownLinksLeadSomewhere(t *testing.T) {
	files(t, ".md", func(p string) {
		data, err := os.ReadFile(filepath.Join(root, p))
		if err != nil {
			t.Error(err)
			return
		}
		fenced, n := false, 0
		for line := range strings.Lines(string(data)) {
			n++
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				fenced = !fenced
			}
			if fenced {
				continue
			}
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				if err := leads(p, m[1]); err != nil {
					t.Errorf("%s:%d: %v", p, n, err)
				}
			}
		}
	})
}

// leads checks a link of the file at p: to a file of ours, and to a heading in
// it. Links to other sites are not followed.
func leads(p, target string) error {
	if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
		return nil
	}
	file, anchor, _ := strings.Cut(target, "#")
	to := p
	if file != "" {
		to = path.Join(path.Dir(p), file)
	}
	info, err := os.Stat(filepath.Join(root, to))
	if err != nil {
		return fmt.Errorf("%s leads nowhere", target)
	}
	if anchor == "" || info.IsDir() || !strings.HasSuffix(to, ".md") {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(root, to))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") && slug(strings.TrimLeft(line, "# ")) == anchor {
			return nil
		}
	}
	return fmt.Errorf("%s: %s has no such heading", target, to)
}

var notSlug = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

// slug is a heading's anchor as GitHub makes it.
func slug(heading string) string {
	s := notSlug.ReplaceAllString(strings.ToLower(strings.TrimSpace(heading)), "")
	return strings.ReplaceAll(s, " ", "-")
}

// topLevel is what the repository has at its top, and what each folder is.
var topLevel = []string{
	"appliance", "wasm", "storage", "sdk", "firmware-config", "benchmarks", ".ci", ".git", ".gitignore", ".cache", "bin", "dist",
	"go.mod", "go.sum", "README.md", "Makefile", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "staticcheck.conf",
}

func TestTopLevelIsAsDesigned(t *testing.T) {
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(topLevel, e.Name()) {
			t.Errorf("%s at the top; expecting one of %v", e.Name(), topLevel)
		}
	}
	for _, folder := range []string{"appliance", "wasm", "storage", "sdk", "firmware-config", "benchmarks"} {
		_, readme := os.Stat(filepath.Join(root, folder, "README.md"))
		_, doc := os.Stat(filepath.Join(root, folder, "doc.go"))
		if readme != nil && doc != nil {
			t.Errorf("%s has neither a README.md nor a doc.go that says what it is, owns and never does", folder)
		}
	}
}
