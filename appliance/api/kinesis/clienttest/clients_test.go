package clienttest

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/appliance/api/kinesis"
	"github.com/weirhq/weir/appliance/api/sts"
	"github.com/weirhq/weir/appliance/listen"
	"github.com/weirhq/weir/appliance/trust"
	"github.com/weirhq/weir/storage"
)

// server is the service behind a listener of its own.
type server struct {
	addr  string
	trust *trust.Trust
}

// Lookup makes the server's one access key known.
func (s *server) Lookup(id string) (aws.Credential, bool) {
	if id != s.trust.AccessKeyID {
		return aws.Credential{}, false
	}
	who := &api.Identity{Name: "client", AccessKeyID: id, Policy: api.FullAccess}
	return aws.Credential{SecretAccessKey: s.trust.SecretAccessKey, Identity: who}, true
}

func serve(t *testing.T) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{}
	var err error
	if s.trust, err = trust.Open(filepath.Join(dir, "trust"), []string{"localhost", "127.0.0.1"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	store, err := storage.Open(context.Background(), filepath.Join(dir, "data"), storage.Options{ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	service, err := kinesis.New(context.Background(), store, kinesis.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.CreateStream(context.Background(), storage.StreamConfig{Name: "other", Shards: 1}); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	quiet := slog.New(slog.DiscardHandler)
	front := listen.New(listen.Options{
		Handler: listen.NewGate(listen.GateOptions{
			Routes:   api.Routes{{Target: kinesis.Target, Handler: service}, {Query: true, Service: "sts", Handler: sts.New("000000000000")}},
			Verifier: aws.NewVerifier(aws.VerifierOptions{Keyring: s}),
		}),
		Certificate: func() (*tls.Certificate, error) { return &s.trust.Server, nil },
		Logger:      quiet,
	})
	done := make(chan error, 1)
	go func() { done <- front.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = front.Shutdown(ctx)
		<-done
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// client is a program that is run against the server.
type client struct {
	name string
	argv []string
	dir  string
	env  []string
}

// run runs the client against one endpoint and checks that it got to its end.
func (s *server) run(t *testing.T, c client, scheme string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 110*time.Second)
	defer cancel()
	host := s.addr
	if scheme == "https" { // SNI needs a name
		_, port, _ := net.SplitHostPort(s.addr)
		host = "localhost:" + port
	}
	ca, err := filepath.Abs(filepath.Join(s.trust.Dir, trust.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, c.argv[0], c.argv[1:]...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(),
		"WEIR_ENDPOINT="+scheme+"://"+host, "WEIR_STREAM="+strings.ReplaceAll(c.name, " ", "-")+"."+scheme,
		"AWS_ACCESS_KEY_ID="+s.trust.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+s.trust.SecretAccessKey,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
	)
	if scheme == "https" {
		cmd.Env = append(cmd.Env, "WEIR_CA="+ca, "AWS_CA_BUNDLE="+ca, "NODE_EXTRA_CA_CERTS="+ca)
	}
	cmd.Env = append(cmd.Env, c.env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(out.String()), "done") {
		t.Fatalf("%s over %s: %v\n%s", c.name, scheme, err, out.String())
	}
}

func (s *server) runBoth(t *testing.T, c client) {
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) { s.run(t, c, scheme) })
	}
}

// build runs a command that makes a client ready.
func build(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s (install.sh puts there what is needed): %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

func TestGoSDK(t *testing.T) {
	s := serve(t)
	for name, modfile := range map[string]string{"current": "go.mod", "year old": "yearold.mod"} {
		t.Run(name, func(t *testing.T) {
			bin := filepath.Join(t.TempDir(), "client")
			build(t, "testdata/gosdk", "go", "build", "-modfile="+modfile, "-o", bin, ".")
			s.runBoth(t, client{name: "gosdk " + name, argv: []string{bin}})
		})
	}
}

func TestBoto3(t *testing.T) {
	serve(t).runBoth(t, client{name: "boto3", argv: []string{"/usr/bin/python3", "testdata/python/client.py"}})
}

func TestCLI(t *testing.T) {
	serve(t).runBoth(t, client{name: "cli", argv: []string{"sh", "testdata/cli/client.sh"}, env: []string{"WEIR_AWS=/usr/bin/aws"}})
}

func TestJavaScriptSDK(t *testing.T) {
	if _, err := os.Stat("testdata/js/node_modules"); err != nil {
		build(t, "testdata/js", "npm", "ci", "--no-audit", "--no-fund")
	}
	serve(t).runBoth(t, client{name: "js", argv: []string{"node", "client.mjs"}, dir: "testdata/js"})
}

func TestJavaSDK(t *testing.T) {
	build(t, "testdata/java", "mvn", "-q", "-B", "-o", "compile", "dependency:copy-dependencies", "-DoutputDirectory=target/lib")
	s := serve(t)
	java := client{name: "java", argv: []string{"java", "-XX:TieredStopAtLevel=1", "-cp", "target/classes:target/lib/*", "Client"}, dir: "testdata/java"}
	s.runBoth(t, java)
	t.Run("https without ALPN", func(t *testing.T) {
		// As KCL 3.0 and 3.1 do it.
		java.name, java.env = "java no alpn", []string{"WEIR_NO_ALPN=1"}
		s.run(t, java, "https")
	})
}
