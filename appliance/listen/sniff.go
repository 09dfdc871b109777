package listen

import "net"

// preface is what a client that knows it speaks HTTP/2 sends first.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// recordHandshake is the first byte of a TLS ClientHello.
const recordHandshake = 0x16

// sniffed is a connection of which a few bytes were read ahead; Read gives them
// out first.
type sniffed struct {
	net.Conn
	ahead  [len(preface)]byte
	off, n uint8
}

func (c *sniffed) Read(p []byte) (int, error) {
	if c.off < c.n {
		n := copy(p, c.ahead[c.off:c.n])
		c.off += uint8(n)
		return n, nil
	}
	return c.Conn.Read(p)
}

// readAhead reads at least one byte more.
func (c *sniffed) readAhead() error {
	for {
		n, err := c.Conn.Read(c.ahead[c.n:])
		c.n += uint8(n)
		if n > 0 || err != nil {
			if n > 0 {
				err = nil
			}
			return err
		}
	}
}

// firstByte returns the first byte without consuming it.
func (c *sniffed) firstByte() (byte, error) {
	if c.n == 0 {
		n, err := c.Conn.Read(c.ahead[:1])
		if n == 0 {
			if err == nil {
				err = net.ErrClosed
			}
			return 0, err
		}
		c.n = 1
	}
	return c.ahead[0], nil
}

// hasPreface tells whether the connection begins with the HTTP/2 preface. It reads
// on only as long as what is there is its beginning, so that it never waits for
// bytes that an HTTP/1.1 client doesn't send.
func (c *sniffed) hasPreface() (bool, error) {
	for {
		if string(c.ahead[:c.n]) != preface[:c.n] {
			return false, nil
		}
		if int(c.n) == len(preface) {
			return true, nil
		}
		if err := c.readAhead(); err != nil {
			return false, err
		}
	}
}
