package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/weirhq/weir/appliance"
	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/telemetry"
	"github.com/weirhq/weir/appliance/trust"
)

type serveCmd struct{}

func (c *serveCmd) Run(a *app) error {
	loaded, err := a.load()
	if err != nil {
		return err
	}
	keepSmall(a)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	return appliance.Run(a.ctx, loaded, appliance.Options{
		Reload:  func() (*config.Loaded, error) { return a.load() },
		Hangup:  hangup,
		Log:     a.err,
		Manager: telemetry.ManagerOf(a.env),
		Version: buildInfo().Version,
		Ready:   func(endpoint string, t *trust.Trust) { firstStart(a.out, a.Dir, endpoint, t) },
	})
}

// firstStart shows the secrets, once: when a box is ready for the first time.
func firstStart(w io.Writer, dir, endpoint string, t *trust.Trust) {
	if !t.Unshown {
		return
	}
	fmt.Fprintf(w, `First start of this box. These are shown once; they are kept in %s, mode 0600.

  Endpoint            %s
  Access key          %s
  Secret access key   %s
  Admin password      %s

Settings for AWS CLI, boto3, Java, Node and Go: weir trust --dir %s

`, filepath.Join(absolute(dir), appliance.TrustDir), endpoint, t.AccessKeyID, t.SecretAccessKey, t.AdminPassword, dir)
	_ = t.Shown() // that it fails is seen: they are shown again
}
