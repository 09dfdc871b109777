// Program telegraf is the peer of the delivery benchmark: Telegraf's agent with
// the plugins that bring a file's lines to S3. Its argument is a Telegraf
// configuration. It prints the CPU seconds that its start took when the agent
// is about to read, and runs until interrupted. It is a module of its own, so
// that the product's dependencies stay the product's.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/influxdata/telegraf/agent"
	"github.com/influxdata/telegraf/config"
	"github.com/influxdata/telegraf/logger"
	_ "github.com/influxdata/telegraf/plugins/inputs/tail"
	_ "github.com/influxdata/telegraf/plugins/outputs/remotefile"
	_ "github.com/influxdata/telegraf/plugins/parsers/value"
	_ "github.com/influxdata/telegraf/plugins/serializers/template"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("usage: telegraf CONFIG")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := logger.SetupLogging(&logger.Config{Quiet: true}); err != nil {
		return err
	}
	c := config.NewConfig()
	if err := c.LoadConfig(os.Args[1]); err != nil {
		return err
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return err
	}
	fmt.Println(time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds())
	return agent.NewAgent(c).Run(ctx)
}
