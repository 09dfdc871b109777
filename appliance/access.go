package appliance

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"strings"
	"sync/atomic"

	"github.com/weirhq/weir/appliance/api"
	"github.com/weirhq/weir/appliance/api/aws"
	"github.com/weirhq/weir/appliance/config"
	"github.com/weirhq/weir/appliance/dn"
	"github.com/weirhq/weir/appliance/trust"
)

// AdminUser is the user of the admin password.
const AdminUser = "admin"

// access is who is known to the box: the access key and the password of the
// first start, which may do everything, and what the configuration adds. A
// reload replaces all of it at once. It implements aws.Keyring and
// listen.Directory.
type access struct{ current atomic.Pointer[accessTables] }

type accessTables struct {
	keys         map[string]aws.Credential
	tokens       map[[32]byte]*api.Identity  // by SHA-256: a look-up tells nothing about a token by its time
	admin        [32]byte                    // SHA-256 of the password
	certificates map[[2]string]*api.Identity // by what they are known by: a field of the configuration, and its value
}

var adminIdentity = &api.Identity{Name: AdminUser, Means: api.MeansBasic, Policy: api.FullAccess}

func (a *access) fill(t *trust.Trust, c *config.Auth) {
	tables := &accessTables{
		keys: map[string]aws.Credential{
			t.AccessKeyID: {SecretAccessKey: t.SecretAccessKey, Identity: &api.Identity{
				Name: "root", AccessKeyID: t.AccessKeyID, Means: api.MeansSigV4, Policy: api.FullAccess,
			}},
		},
		tokens:       map[[32]byte]*api.Identity{},
		admin:        sha256.Sum256([]byte(t.AdminPassword)),
		certificates: map[[2]string]*api.Identity{},
	}
	policy := func(g config.Grant) api.Policy { return api.Policy{{Actions: g.Actions, Streams: g.Streams}} }
	for _, k := range c.Keys {
		name := k.Name
		if name == "" {
			name = k.AccessKeyID
		}
		tables.keys[k.AccessKeyID] = aws.Credential{SecretAccessKey: k.SecretAccessKey.Reveal(), Identity: &api.Identity{
			Name: name, AccessKeyID: k.AccessKeyID, Means: api.MeansSigV4, Policy: policy(k.Grant),
		}}
	}
	for _, k := range c.Tokens {
		tables.tokens[sha256.Sum256([]byte(k.Token.Reveal()))] = &api.Identity{Name: k.Name, Means: api.MeansBearer, Policy: policy(k.Grant)}
	}
	for i := range c.Certificates {
		k := &c.Certificates[i]
		field, value, err := k.Mark()
		if err != nil {
			continue // the configuration has been validated
		}
		name := cmp.Or(k.Name, k.Subject, k.CommonName, k.URI, k.DNS, k.Email)
		tables.certificates[[2]string{field, value}] = &api.Identity{Name: name, Means: api.MeansCertificate, Policy: policy(k.Grant)}
	}
	a.current.Store(tables)
}

// Lookup implements aws.Keyring.
func (a *access) Lookup(accessKeyID string) (aws.Credential, bool) {
	c, ok := a.current.Load().keys[accessKeyID]
	return c, ok
}

// Token implements listen.Directory.
func (a *access) Token(token string) *api.Identity {
	return a.current.Load().tokens[sha256.Sum256([]byte(token))]
}

// Password implements listen.Directory.
func (a *access) Password(user, password string) *api.Identity {
	sum := sha256.Sum256([]byte(password))
	if user != AdminUser || subtle.ConstantTimeCompare(sum[:], a.current.Load().admin[:]) != 1 {
		return nil
	}
	return adminIdentity
}

// Certificate implements listen.Directory. What says most about a certificate
// decides: its whole subject, then an alternative name, then the common name.
func (a *access) Certificate(cert *x509.Certificate) *api.Identity {
	known := a.current.Load().certificates
	if name, err := dn.Of(cert.RawSubject); err == nil {
		if id := known[[2]string{"subject", string(name)}]; id != nil {
			return id
		}
	}
	for _, uri := range cert.URIs {
		if id := known[[2]string{"uri", uri.String()}]; id != nil {
			return id
		}
	}
	for _, name := range cert.DNSNames {
		if id := known[[2]string{"dns", strings.ToLower(name)}]; id != nil {
			return id
		}
	}
	for _, address := range cert.EmailAddresses {
		if id := known[[2]string{"email", address}]; id != nil {
			return id
		}
	}
	return known[[2]string{"common_name", cert.Subject.CommonName}]
}
