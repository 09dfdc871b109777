package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/weirhq/weir/appliance/delivery"
	"github.com/weirhq/weir/appliance/fault"
)

// objectStore is where the demo reads objects back from.
type objectStore interface {
	open(ctx context.Context, key string) (io.ReadCloser, error)
	fmt.Stringer
}

// folder is a local folder of objects.
type folder string

func (f folder) open(_ context.Context, key string) (io.ReadCloser, error) {
	return os.Open(filepath.Join(string(f), filepath.FromSlash(key)))
}

func (f folder) String() string { return string(f) }

// S3 is a bucket of an S3-compatible store.
type S3 struct {
	URL                                        string // https://host:port/bucket
	AccessKeyID, SecretAccessKey, SessionToken string
	Region                                     string
}

func (s *S3) target() (delivery.Target, objectStore, error) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" || len(u.Path) < 2 || (u.Scheme != "http" && u.Scheme != "https") {
		return delivery.Target{}, nil, &fault.Error{Class: fault.Usage, Subject: "--s3", Value: s.URL, Expect: "expecting the URL of a store and a bucket, such as https://host:9000/bucket"}
	}
	endpoint, bucket := u.Scheme+"://"+u.Host, u.Path[1:]
	settings := map[string]any{"endpoint": endpoint, "bucket": bucket, "path_style": true}
	for name, value := range map[string]string{"region": s.Region, "access_key_id": s.AccessKeyID, "secret_access_key": s.SecretAccessKey, "session_token": s.SessionToken} {
		if value != "" {
			settings[name] = value
		}
	}
	data, err := json.Marshal(settings)
	if err != nil {
		return delivery.Target{}, nil, err
	}
	client, err := minio.New(u.Host, &minio.Options{
		Creds: credentials.NewStaticV4(s.AccessKeyID, s.SecretAccessKey, s.SessionToken), Secure: u.Scheme == "https", Region: s.Region, BucketLookup: minio.BucketLookupPath,
	})
	if err != nil {
		return delivery.Target{}, nil, err
	}
	return delivery.Target{Kind: "s3", Settings: data}, &bucketStore{client, bucket, s.URL}, nil
}

type bucketStore struct {
	client      *minio.Client
	bucket, url string
}

func (b *bucketStore) open(ctx context.Context, key string) (io.ReadCloser, error) {
	return b.client.GetObject(ctx, b.bucket, key, minio.GetObjectOptions{})
}

func (b *bucketStore) String() string { return b.url }
