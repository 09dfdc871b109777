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
		Ready:   a.serving,
	})
}

// served is what serve prints with --json when the box is ready. The secrets are in it
// at the first start only.
type served struct {
	Endpoint        string `json:"endpoint"`
	Directory       string `json:"directory"`
	FirstStart      bool   `json:"first_start"`
	AccessKeyID     string `json:"access_key_id,omitempty"`
	SecretAccessKey string `json:"secret_access_key,omitempty"`
	AdminPassword   string `json:"admin_password,omitempty"`
}

// serving says that the box is ready, to who started it.
func (a *app) serving(endpoint string, t *trust.Trust) {
	s := served{Endpoint: endpoint, Directory: absolute(a.Dir), FirstStart: t.Unshown}
	if s.FirstStart {
		s.AccessKeyID, s.SecretAccessKey, s.AdminPassword = t.AccessKeyID, t.SecretAccessKey, t.AdminPassword
	}
	err := a.emit(s, func(w io.Writer) {
		if s.FirstStart {
			firstStart(w, a.Dir, &s)
		}
	})
	if s.FirstStart && err == nil {
		_ = t.Shown() // that it fails is seen: they are shown again
	}
}

// firstStart shows the secrets, once: when a box is ready for the first time.
func firstStart(w io.Writer, dir string, s *served) {
	fmt.Fprintf(w, `First start of this box. These are shown once; they are kept in %s, mode 0600.

  Endpoint            %s
  Access key          %s
  Secret access key   %s
  Admin password      %s

Settings for AWS CLI, boto3, Java, Node and Go: weir trust --dir %s

`, filepath.Join(s.Directory, appliance.TrustDir), s.Endpoint, s.AccessKeyID, s.SecretAccessKey, s.AdminPassword, dir)
}
