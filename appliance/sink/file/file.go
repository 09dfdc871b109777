// Package file is the sink that stores objects as files under a folder: a
// local disk, a USB stick, a mounted share.
//
// It owns the folder's layout: an object's name is its path. A file appears
// under its name whole and synced, or not at all. It never changes or removes
// a file that it did not make in the same call.
//
//	sinks:
//	  - name: usb
//	    kind: file
//	    settings: {dir: /mnt/usb/weir}
package file

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/weirhq/weir/appliance/delivery"
)

// Settings of a file sink.
type Settings struct {
	// Dir is the folder. It must be there: a missing mount must not fill
	// the disk below it.
	Dir string `json:"dir" yaml:"dir"`
	// Create makes Dir when it is missing.
	Create bool `json:"create,omitempty" yaml:"create"`
	// Bucket is a folder below Dir, "" for Dir itself.
	Bucket string `json:"bucket,omitempty" yaml:"bucket"`
	// NoMetadata leaves out what says of which recipe each object is: an
	// extended attribute, or a row under .weir/ where the file system has none.
	// Without it a repeated object replaces itself instead of being
	// recognised.
	NoMetadata bool `json:"no_metadata,omitempty" yaml:"no_metadata"`
	// Metered counts the folder to the box's uplink, whose cap then applies: for
	// a mounted share behind it. A delivery stream's own cap and budget apply
	// to any folder.
	Metered bool `json:"metered,omitempty" yaml:"metered"`
}

// Validate returns what is wrong with the settings, or nil.
func (s *Settings) Validate() error {
	if s.Dir == "" {
		return errors.New("dir: must name a folder")
	}
	if s.Bucket != "" && !filepath.IsLocal(s.Bucket) {
		return fmt.Errorf("bucket: %q must be a folder below dir", s.Bucket)
	}
	return nil
}

// Sink is an open file sink.
type Sink struct{ settings Settings }

var _ delivery.ObjectSink = (*Sink)(nil)

// Open returns the sink. It does not look at the folder yet.
func Open(s Settings) (*Sink, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return &Sink{settings: s}, nil
}

// Close does nothing: a file sink holds nothing between calls.
func (s *Sink) Close() error { return nil }

// Metered says whether the folder is behind the uplink.
func (s *Sink) Metered() bool { return s.settings.Metered }

// attribute holds an object's metadata as JSON. It is set before the file is
// synced, so an object never lacks it.
const attribute = "user.weir"

// rowDir holds one small file per object with the same, on file systems without
// extended attributes (FAT, most shares). It is written and synced before the
// object, which costs as much as a small object.
const rowDir = ".weir"

func (s *Sink) root() (string, error) {
	info, err := os.Stat(s.settings.Dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && s.settings.Create:
		if err := os.MkdirAll(s.settings.Dir, 0o755); err != nil {
			return "", sinkError(err)
		}
	case err != nil:
		return "", sinkError(err)
	case !info.IsDir():
		return "", sinkError(fmt.Errorf("%s is not a folder", s.settings.Dir))
	}
	return filepath.Join(s.settings.Dir, s.settings.Bucket), nil
}

// PutObject writes to a temporary file in the object's folder, syncs it, gives
// it its name, and syncs the folder.
func (s *Sink) PutObject(ctx context.Context, o *delivery.Object) (delivery.Stored, error) {
	root, err := s.root()
	if err != nil {
		return delivery.Stored{}, err
	}
	name := filepath.FromSlash(o.Key)
	if !filepath.IsLocal(name) || strings.IndexByte(name, 0) >= 0 || strings.HasPrefix(path.Clean(o.Key), rowDir+"/") {
		return delivery.Stored{}, &delivery.SinkError{Code: "File.BadName", Refused: true, BadName: true, Err: fmt.Errorf("object name %q can't be a path", o.Key)}
	}
	target := filepath.Join(root, name)
	if stored, ok, err := s.there(root, target, o); ok || err != nil {
		return stored, err
	}
	dir := filepath.Dir(target)
	if err := makeDirs(dir); err != nil {
		return delivery.Stored{}, sinkError(err)
	}
	// Named after the object: what a kill leaves is written over by the next
	// attempt, and goes.
	sum := sha256.Sum256([]byte(filepath.Base(target)))
	temp, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf(".%x.part", sum[:12])), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return delivery.Stored{}, sinkError(err)
	}
	size, marked, err := write(ctx, temp, o, !s.settings.NoMetadata)
	if err == nil && !s.settings.NoMetadata && !marked {
		err = s.writeRow(root, o)
	}
	if err == nil {
		err = os.Rename(temp.Name(), target)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		_ = os.Remove(temp.Name())
		return delivery.Stored{}, sinkError(err)
	}
	return delivery.Stored{Bytes: size}, nil
}

// there says whether the object is stored already, by an earlier attempt.
func (s *Sink) there(root, target string, o *delivery.Object) (delivery.Stored, bool, error) {
	info, err := os.Stat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return delivery.Stored{}, false, nil
	}
	if err != nil {
		return delivery.Stored{}, false, sinkError(err)
	}
	if s.settings.NoMetadata {
		return delivery.Stored{}, false, nil // it replaces itself
	}
	var row map[string]string
	raw, err := readMark(target)
	if err != nil {
		raw, err = os.ReadFile(rowName(root, o.Key))
	}
	if err == nil {
		err = json.Unmarshal(raw, &row)
	}
	if err != nil || row[delivery.RecipeKey] != o.Metadata[delivery.RecipeKey] {
		return delivery.Stored{}, false, sinkError(fmt.Errorf("%s is there and is not ours (recipe %q)", target, row[delivery.RecipeKey]))
	}
	// The name may be there without having been synced.
	if err := syncDir(filepath.Dir(target)); err != nil {
		return delivery.Stored{}, false, sinkError(err)
	}
	return delivery.Stored{Bytes: info.Size(), Duplicate: true}, true, nil
}

func rowName(root, key string) string {
	return filepath.Join(root, rowDir, filepath.FromSlash(key)+".json")
}

func (s *Sink) writeRow(root string, o *delivery.Object) error {
	name := rowName(root, o.Key)
	if err := makeDirs(filepath.Dir(name)); err != nil {
		return err
	}
	raw, err := json.Marshal(o.Metadata)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(name), "*.part")
	if err != nil {
		return err
	}
	_, err = temp.Write(raw)
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return syncDir(filepath.Dir(name))
}

// write renders into the file, marks it with the object's metadata if mark says
// so and the file system can, and syncs it.
func write(ctx context.Context, f *os.File, o *delivery.Object, mark bool) (n int64, marked bool, err error) {
	gathered := newDirectWriter(f, o.Buffer)
	w := &counter{ctx: ctx, w: gathered, throttle: o.Throttle}
	err = o.Render(w)
	if err == nil {
		err = gathered.flush()
	}
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil && mark {
		marked = setMark(f.Name(), o)
	}
	if err == nil {
		err = f.Sync()
	}
	return w.n, marked, errors.Join(err, f.Close())
}

// setMark says whether the file took its metadata as an attribute.
func setMark(name string, o *delivery.Object) bool {
	raw, err := json.Marshal(o.Metadata)
	return err == nil && syscall.Setxattr(name, attribute, raw, 0) == nil
}

// readMark is the metadata that a file is marked with.
func readMark(name string) ([]byte, error) {
	buf := make([]byte, 4<<10)
	n, err := syscall.Getxattr(name, attribute, buf)
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

type counter struct {
	ctx      context.Context
	w        io.Writer
	throttle func(io.Reader) io.Reader
	n        int64
}

func (c *counter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := io.Copy(c.w, c.throttle(bytes.NewReader(p)))
	c.n += n
	return int(n), err
}

// makeDirs makes a folder and syncs the parents of what it made.
func makeDirs(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := makeDirs(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // file systems that sync names by themselves
	}
	return errors.Join(err, d.Close())
}

// sinkError gives an error its code. ErrNoRecords passes as it is.
func sinkError(err error) error {
	if errors.Is(err, delivery.ErrNoRecords) {
		return delivery.ErrNoRecords
	}
	code := "File.Failed"
	switch {
	case errors.Is(err, syscall.ENAMETOOLONG):
		code = "File.BadName"
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		code = "File.NoSpace"
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS):
		code = "File.AccessDenied"
	case errors.Is(err, fs.ErrNotExist):
		code = "File.NoSuchFolder"
	}
	bad := code == "File.BadName"
	return &delivery.SinkError{Code: code, Refused: bad || code == "File.NoSuchFolder" || code == "File.AccessDenied", BadName: bad, Err: err}
}

// Probe writes, reads and removes a file.
func (s *Sink) Probe(context.Context) (delivery.Probed, error) {
	root, err := s.root()
	if err != nil {
		return delivery.Probed{}, err
	}
	if err := makeDirs(root); err != nil {
		return delivery.Probed{}, sinkError(err)
	}
	const text = "weir probe\n"
	f, err := os.CreateTemp(root, ".weir-probe-*")
	if err != nil {
		return delivery.Probed{}, sinkError(err)
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	raw, readErr := os.ReadFile(f.Name())
	if err = errors.Join(err, readErr, os.Remove(f.Name())); err != nil {
		return delivery.Probed{}, sinkError(err)
	}
	if string(raw) != text {
		return delivery.Probed{}, sinkError(fmt.Errorf("%s was written, and read back it is %q", f.Name(), raw))
	}
	found := delivery.Probed{Guarantee: delivery.ExactlyOnce, Tried: "reached, written, read and removed"}
	if s.settings.NoMetadata {
		found.Guarantee = delivery.ByName
	}
	return found, nil
}
