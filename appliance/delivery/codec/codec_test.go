package codec

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func sample(size int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `{"device":"pump-%d","seq":%d,"temperature":%d.%d,"ok":true}`+"\n", i%17, i, 20+i*7%13, i*31%10)
	}
	return b.Bytes()[:size]
}

func encode(t testing.TB, c Codec, o Options, raw []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := c.NewWriter(&out, o)
	if err != nil {
		t.Fatal(err)
	}
	for len(raw) > 0 { // uneven pieces, as records come
		n := min(len(raw), 1+len(raw)%7001)
		if _, err := w.Write(raw[:n]); err != nil {
			t.Fatal(err)
		}
		raw = raw[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// readers are programs that aren't ours, by codec; {} is the object's path.
var readers = map[Codec][]string{
	Gzip:         {"gzip", "-dc", "{}"},
	Zip:          {"unzip", "-p", "{}"},
	Zstd:         {"zstd", "-dcq", "{}"},
	Snappy:       {"python3", "-c", "import snappy,sys; snappy.stream_decompress(open(sys.argv[1],'rb'),sys.stdout.buffer)", "{}"},
	HadoopSnappy: {"python3", "-c", "import snappy,sys; sys.stdout.buffer.write(snappy.HadoopStreamDecompressor().decompress(open(sys.argv[1],'rb').read()))", "{}"},
}

// TestOthersReadObjects reads every codec back with an independent program.
func TestOthersReadObjects(t *testing.T) {
	for c, command := range readers {
		for _, size := range []int{0, 1, 4000, hadoopBlock, 3*gzipBlock + 17} {
			for _, level := range []int{0, 9} {
				if c.CheckLevel(level) != nil {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d/level=%d", c, size, level), func(t *testing.T) {
					raw := sample(size)
					path := filepath.Join(t.TempDir(), "object"+c.Extension())
					if err := os.WriteFile(path, encode(t, c, Options{Level: level, Workers: 2, Entry: "object"}, raw), 0o600); err != nil {
						t.Fatal(err)
					}
					if size == 0 && c == HadoopSnappy {
						return // an empty stream has no block
					}
					args := append([]string{}, command...)
					args[len(args)-1] = path
					got, err := exec.Command(args[0], args[1:]...).Output()
					var exit *exec.ExitError
					if errors.As(err, &exit) {
						t.Fatalf("%s: %v: %s", args[0], err, exit.Stderr)
					}
					if err != nil {
						t.Fatalf("%v (appliance/delivery/install.sh installs what this test needs)", err)
					}
					if !bytes.Equal(got, raw) {
						t.Fatalf("%d bytes come back as %d", len(raw), len(got))
					}
				})
			}
		}
	}
}

func TestBytesDoNotDependOnWorkers(t *testing.T) {
	raw := sample(5*gzipBlock + 3)
	one := encode(t, Gzip, Options{}, raw)
	for _, workers := range []int{1, 2, 3, 8} {
		if !bytes.Equal(one, encode(t, Gzip, Options{Workers: workers}, raw)) {
			t.Errorf("%d workers make other bytes than one", workers)
		}
	}
}

func TestParseAndLevels(t *testing.T) {
	for in, want := range map[string]Codec{"": Uncompressed, "gzip": Gzip, "SNAPPY": Snappy, "hadoop_snappy": HadoopSnappy, "zstd": Zstd} {
		if got, err := Parse(in); err != nil || got != want {
			t.Errorf("Parse(%q) = %q, %v", in, got, err)
		}
	}
	if _, err := Parse("lz4"); err == nil {
		t.Error("lz4 was accepted")
	}
	if Snappy.CheckLevel(3) == nil || Zstd.CheckLevel(23) == nil || Gzip.CheckLevel(-1) == nil {
		t.Error("a level that the codec doesn't have was accepted")
	}
}

type failing struct{ after int }

func (f *failing) Write(p []byte) (int, error) {
	if f.after -= len(p); f.after < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

// TestErrorsOfTheSinkComeBack checks that no codec swallows a failed write.
func TestErrorsOfTheSinkComeBack(t *testing.T) {
	for _, c := range All {
		w, err := c.NewWriter(&failing{after: 1000}, Options{Workers: 2})
		if err == nil {
			_, err = w.Write(sample(4 * gzipBlock))
			err = errors.Join(err, w.Close())
		}
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: got %v", c, err)
		}
	}
}

// go test -run - -bench Gzip -benchtime 3s ./appliance/delivery/codec
func BenchmarkGzip(b *testing.B) {
	raw := sample(8 << 20)
	for _, workers := range []int{1, 2} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				w, err := Gzip.NewWriter(io.Discard, Options{Workers: workers})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := w.Write(raw); err != nil {
					b.Fatal(err)
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestTimeOfAZIP: a file taken out of the archive has the time of its records, and one of a
// box that starts in 1970 a time that the format has.
func TestTimeOfAZIP(t *testing.T) {
	at := time.Date(2026, 11, 23, 20, 11, 40, 0, time.UTC)
	for given, want := range map[time.Time]time.Time{at: at, time.Unix(60, 0): time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)} {
		raw := encode(t, Zip, Options{Modified: given}, []byte("x"))
		z, err := zip.NewReader(bytes.NewReader(raw), int64(len(raw)))
		if err != nil || len(z.File) != 1 || !z.File[0].Modified.Equal(want) {
			t.Errorf("%v became %v (%v), want %v", given, z.File[0].Modified, err, want)
		}
	}
}
