package appliance

import "path/filepath"

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
