package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/fault"
	"github.com/weirhq/weir/appliance/remote"
	"github.com/weirhq/weir/appliance/trust"
)

type trustCmd struct {
	For     string `arg:"" optional:"" enum:",aws,boto3,java,node,go,ca" default:"" help:"Only one: aws, boto3, java, node, go, or ca for the certificate alone."`
	Secrets bool   `help:"Show the secret access key and the admin password."`
}

type trustInfo struct {
	Endpoint        string `json:"endpoint"`
	CAFile          string `json:"ca_file"`
	CA              string `json:"ca"`
	CredentialsFile string `json:"credentials_file"`
	AccessKeyID     string `json:"access_key_id"`
	SecretAccessKey string `json:"secret_access_key,omitempty"`
	AdminPassword   string `json:"admin_password,omitempty"`
}

func (c *trustCmd) Run(a *app) error {
	t, err := trust.Read(a.trustDir())
	if errors.Is(err, fs.ErrNotExist) {
		return &fault.Error{Class: fault.Environment, Subject: "data directory", Value: a.Dir, Expect: "no box was started on it yet", Try: "weir serve --dir " + a.Dir}
	}
	if err != nil {
		return err
	}
	info := trustInfo{
		Endpoint: a.expectedEndpoint(), CA: string(t.CA), AccessKeyID: t.AccessKeyID,
		CAFile: filepath.Join(absolute(t.Dir), trust.CAFile), CredentialsFile: filepath.Join(absolute(t.Dir), trust.CredentialsFile),
	}
	if url, err := appliance.ReadEndpoint(a.Dir); err == nil {
		info.Endpoint = url
	}
	if c.Secrets {
		info.SecretAccessKey, info.AdminPassword = t.SecretAccessKey, t.AdminPassword
	}
	return a.emit(info, func(w io.Writer) { c.print(w, &info) })
}

// expectedEndpoint is where the box will be by its configuration.
func (a *app) expectedEndpoint() string {
	address := config.Default().Listen.Address
	if l, err := a.load(); err == nil {
		address = l.Listen.Address
	}
	host, port, err := net.SplitHostPort(address)
	if ip, e := netip.ParseAddr(host); err != nil || host == "" || e == nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "https://" + net.JoinHostPort(host, port)
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

func (c *trustCmd) print(w io.Writer, info *trustInfo) {
	if c.For == "ca" {
		fmt.Fprint(w, info.CA)
		return
	}
	if c.For == "" {
		fmt.Fprintf(w, "%s\nEndpoint      %s\nAuthority     %s\nCredentials   %s\nAccess key    %s\n", info.CA, info.Endpoint, info.CAFile, info.CredentialsFile, info.AccessKeyID)
		if info.SecretAccessKey != "" {
			fmt.Fprintf(w, "Secret key    %s\nAdmin         user admin, password %s\n", info.SecretAccessKey, info.AdminPassword)
		} else {
			fmt.Fprintln(w, "Secrets       in the files; --secrets prints them")
		}
	}
	fill := strings.NewReplacer("{endpoint}", info.Endpoint, "{ca}", info.CAFile, "{credentials}", info.CredentialsFile, "{region}", remote.Region,
		"{sh ca}", shellWord(info.CAFile), "{sh credentials}", shellWord(info.CredentialsFile))
	for _, s := range clientSettings {
		if c.For == "" {
			fmt.Fprintf(w, "\n%s\n\n", s.title)
		}
		if c.For == "" || c.For == s.name {
			for line := range strings.Lines(fill.Replace(s.text)) {
				if c.For == "" {
					line = "    " + line
				}
				fmt.Fprint(w, line)
			}
		}
	}
}

// shellWord is a path as one word of a shell: in quotes when it needs them.
func shellWord(path string) string {
	if !strings.ContainsFunc(path, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/._-+:@", r)
	}) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// clientSettings is what to paste for each kind of client. Keys and a profile that are
// in the environment already, for AWS itself say, win over the file of credentials.
var clientSettings = []struct{ name, title, text string }{
	{"aws", "AWS CLI", `unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN AWS_PROFILE
export AWS_SHARED_CREDENTIALS_FILE={sh credentials} AWS_DEFAULT_REGION={region} AWS_CA_BUNDLE={sh ca}
aws --endpoint-url {endpoint} kinesis list-streams
`},
	{"boto3", "Python, boto3", `# without AWS_ACCESS_KEY_ID and AWS_PROFILE in the environment, which would win
import os, boto3
os.environ["AWS_SHARED_CREDENTIALS_FILE"] = "{credentials}"
kinesis = boto3.client("kinesis", endpoint_url="{endpoint}", region_name="{region}", verify="{ca}")
`},
	{"java", "Java, AWS SDK v2", `// once: keytool -importcert -noprompt -alias weir -file {sh ca} -keystore weir.jks -storepass changeit
// run with: -Djavax.net.ssl.trustStore=weir.jks -Djavax.net.ssl.trustStorePassword=changeit
//           and AWS_SHARED_CREDENTIALS_FILE={sh credentials}, without AWS_ACCESS_KEY_ID and AWS_PROFILE
KinesisAsyncClient kinesis = KinesisAsyncClient.builder()
    .endpointOverride(URI.create("{endpoint}")).region(Region.of("{region}")).build();
`},
	{"node", "Node.js, AWS SDK v3", `// run with: NODE_EXTRA_CA_CERTS={sh ca} AWS_SHARED_CREDENTIALS_FILE={sh credentials}
// and without AWS_ACCESS_KEY_ID and AWS_PROFILE in the environment, which would win
import { KinesisClient } from "@aws-sdk/client-kinesis";
const kinesis = new KinesisClient({ endpoint: "{endpoint}", region: "{region}" });
`},
	{"go", "Go, AWS SDK v2", `// run with: AWS_SHARED_CREDENTIALS_FILE={sh credentials} AWS_CA_BUNDLE={sh ca}
// and without AWS_ACCESS_KEY_ID and AWS_PROFILE in the environment, which would win
cfg, err := config.LoadDefaultConfig(ctx, config.WithRegion("{region}"), config.WithBaseEndpoint("{endpoint}"))
client := kinesis.NewFromConfig(cfg)
`},
}
