package appliance

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/weirhq/weir/appliance/trust"
	"github.com/weirhq/weir/storage"
)

// What the data directory holds. Each part owns its own folder in it.
const (
	StoreDir     = "store"    // the shard log
	TrustDir     = "trust"    // authority, certificate, access key, admin password
	CacheDir     = "cache"    // compiled modules; may be deleted while the box is stopped
	EndpointFile = "endpoint" // URL of the box that runs on the directory; gone when it stopped well

	ShownCertificateFile = "endpoint.pem" // certificate that this box shows, or showed last
)

// StorePath returns the folder of the shard log in the data directory dir.
func StorePath(dir string) string { return filepath.Join(dir, StoreDir) }

// ReadEndpoint returns the URL in the endpoint file of the data directory dir.
func ReadEndpoint(dir string) (string, error) {
	path := filepath.Join(dir, EndpointFile)
	if url, err := os.Readlink(path); err == nil {
		return url, nil
	}
	data, err := os.ReadFile(path)
	return strings.TrimSpace(string(data)), err
}

// writeEndpoint replaces the endpoint file of the data directory dir. On a disk without
// a free byte it is a symbolic link to the URL, which needs none.
func writeEndpoint(dir, url string) error {
	path := filepath.Join(dir, EndpointFile)
	err := trust.Replace(path, []byte(url+"\n"), 0o644)
	if !storage.NoSpace(err) {
		return err
	}
	if err := os.Symlink(url, path+".new"); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
