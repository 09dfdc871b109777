// Package s3 is the sink that stores objects in Amazon S3 or any store that
// speaks its protocol.
//
// It owns the connection: addressing, TLS, credentials, signatures, parts. An
// object is stored by one PUT of known size whenever that is possible, create
// only, and in equal parts above that. It asks no store for more than SigV4,
// PUT, HEAD and DELETE; checksums that many stores refuse are not sent. It
// never holds more of an object than the buffer it is lent.
package s3

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/weirhq/weir/appliance/delivery"
)

// Settings of an s3 sink.
type Settings struct {
	// Endpoint is the store's URL: https://s3.eu-central-1.amazonaws.com,
	// http://192.168.1.10:9000. "" is AWS in Region.
	Endpoint string `json:"endpoint,omitempty" yaml:"endpoint"`
	Region   string `json:"region,omitempty" yaml:"region"` // default us-east-1
	// Bucket that objects go to. A delivery stream may name another. The
	// bucket must exist.
	Bucket string `json:"bucket,omitempty" yaml:"bucket"`
	// PathStyle puts the bucket in the path instead of the host name.
	// Default: for every endpoint that isn't AWS.
	PathStyle *bool  `json:"path_style,omitempty" yaml:"path_style"`
	CAFile    string `json:"ca_file,omitempty" yaml:"ca_file"` // PEM, trusted besides the system's

	// Credentials: a key, or Source instance (the role of the machine, of the
	// container, or of the web identity that the environment names), or
	// neither for a store that asks for none.
	AccessKeyID     string          `json:"access_key_id,omitempty" yaml:"access_key_id"`
	SecretAccessKey delivery.Secret `json:"secret_access_key,omitempty" yaml:"secret_access_key"`
	SessionToken    delivery.Secret `json:"session_token,omitempty" yaml:"session_token"`
	Source          string          `json:"source,omitempty" yaml:"source"`
	// MetadataEndpoint is where Source instance asks. Default: EC2's
	// http://169.254.169.254, or what a container's environment names.
	MetadataEndpoint string `json:"metadata_endpoint,omitempty" yaml:"metadata_endpoint"`
	// RoleARN is assumed with the credentials above, a key's or those of Source.
	RoleARN     string `json:"role_arn,omitempty" yaml:"role_arn"`
	ExternalID  string `json:"external_id,omitempty" yaml:"external_id"`
	STSEndpoint string `json:"sts_endpoint,omitempty" yaml:"sts_endpoint"` // default: AWS's, in Region

	SSE          string            `json:"sse,omitempty" yaml:"sse"`               // AES256 or aws:kms
	KMSKeyID     string            `json:"kms_key_id,omitempty" yaml:"kms_key_id"` // for aws:kms
	StorageClass string            `json:"storage_class,omitempty" yaml:"storage_class"`
	Tags         map[string]string `json:"tags,omitempty" yaml:"tags"`

	// SinglePutBytes is up to what size an object whose size is known goes
	// out in one PUT. Default 64 MiB.
	SinglePutBytes int64 `json:"single_put_bytes,omitempty" yaml:"single_put_bytes"`
	// Timeout of one answer. Default 60 s.
	Timeout delivery.Duration `json:"timeout,omitempty" yaml:"timeout"`
}

func (s Settings) withDefaults() Settings {
	if s.Region == "" {
		s.Region = "us-east-1"
	}
	if s.Endpoint == "" {
		s.Endpoint = "https://s3." + s.Region + ".amazonaws.com"
		if s.PathStyle == nil {
			virtual := false
			s.PathStyle = &virtual
		}
	}
	if s.PathStyle == nil {
		path := true
		s.PathStyle = &path
	}
	if s.SinglePutBytes == 0 {
		s.SinglePutBytes = 64 << 20
	}
	if s.Timeout == 0 {
		s.Timeout = delivery.Duration(time.Minute)
	}
	if s.STSEndpoint == "" {
		s.STSEndpoint = "https://sts." + s.Region + ".amazonaws.com"
	}
	return s
}

// issuer names, for people, who issues the credentials.
func (s *Settings) issuer() string {
	switch {
	case s.RoleARN != "":
		return "the token service " + s.STSEndpoint
	case s.MetadataEndpoint != "":
		return "the metadata service " + s.MetadataEndpoint
	}
	return "the metadata service of the machine or container"
}

// Validate returns every problem of the settings, or nil.
func (s *Settings) Validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if s.Endpoint != "" {
		u, err := url.Parse(s.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.Path != "" && u.Path != "/" {
			bad("endpoint: %q must be http://host[:port] or https://host[:port]", s.Endpoint)
		}
	}
	if s.Bucket == "" {
		bad("bucket: must be given, here or by the delivery stream")
	} else if err := s3utils.CheckValidBucketName(s.Bucket); err != nil {
		bad("bucket: %q: %w; expecting 3 to 63 letters, digits, '-', '.', '_' or ':'", s.Bucket, err)
	}
	if (s.AccessKeyID == "") != (s.SecretAccessKey == "") {
		bad("access_key_id and secret_access_key belong together")
	}
	if s.Source != "" && s.Source != "instance" {
		bad("source: %q is not instance", s.Source)
	}
	if s.Source != "" && s.AccessKeyID != "" {
		bad("source: give either a key or source")
	}
	if s.MetadataEndpoint != "" && s.Source != "instance" {
		bad("metadata_endpoint: needs source instance")
	}
	if s.RoleARN != "" && s.AccessKeyID == "" && s.Source == "" {
		bad("role_arn: needs credentials to assume it with: access_key_id and secret_access_key, or source: instance")
	}
	if s.SSE != "" && s.SSE != "AES256" && s.SSE != "aws:kms" {
		bad("sse: %q is not AES256 or aws:kms", s.SSE)
	}
	if s.KMSKeyID != "" && s.SSE != "aws:kms" {
		bad("kms_key_id: needs sse aws:kms")
	}
	if s.SinglePutBytes < 0 || s.SinglePutBytes > 5<<30 {
		bad("single_put_bytes: %d is not between 0 and %d", s.SinglePutBytes, int64(5)<<30)
	}
	if len(s.Tags) > 10 {
		bad("tags: %d tags, S3 has at most 10", len(s.Tags))
	}
	return errors.Join(problems...)
}
