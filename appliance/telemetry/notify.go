package telemetry

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"
)

// Manager is the service manager that started the process, after sd_notify(3).
// The zero Manager is none: its methods do nothing.
type Manager struct {
	Socket   string        // NOTIFY_SOCKET
	Watchdog time.Duration // WATCHDOG_USEC: a process silent for so long is killed; 0 for no watchdog
}

// ManagerOf reads the variables that systemd gives its services.
func ManagerOf(getenv func(string) string) Manager {
	m := Manager{Socket: getenv("NOTIFY_SOCKET")}
	if usec, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 {
		m.Watchdog = time.Duration(usec) * time.Microsecond
	}
	return m
}

// Ready says that the box serves.
func (m Manager) Ready() error { return m.send("READY=1") }

// Stopping says that the box has begun to stop.
func (m Manager) Stopping() error { return m.send("STOPPING=1") }

// Reloading says that the configuration is being read again; Ready ends it.
// since is the time since boot, which the manager wants to see.
func (m Manager) Reloading(since time.Duration) error {
	return m.send(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", since.Microseconds()))
}

// Watch tells the manager that the box is well, at half the watchdog's time,
// as long as healthy returns nil. It returns when ctx ends, at once when there is
// no watchdog.
func (m Manager) Watch(ctx context.Context, healthy func() error) {
	if m.Socket == "" || m.Watchdog <= 0 {
		return
	}
	tick := time.NewTicker(m.Watchdog / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if healthy() == nil {
				_ = m.send("WATCHDOG=1") // a manager that is gone can't be told
			}
		}
	}
}

func (m Manager) send(state string) error {
	if m.Socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: m.Socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("service manager: %w", err)
	}
	return nil
}
