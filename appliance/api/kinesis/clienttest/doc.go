// Package clienttest runs unmodified AWS clients against the service behind a real
// listener, in cleartext and over TLS, with signatures checked: the AWS SDK for Go v2
// (the version of go.mod and one about a year older), boto3 and the AWS CLI as Debian
// has them, the AWS SDK for JavaScript v3, which speaks HTTP/2 only, and the AWS SDK
// for Java v2 with its asynchronous HTTP/2 client, which speaks CBOR.
//
// It holds nothing but tests. What they need beside Go is put there by install.sh; a
// tool that is missing fails them. Each client is a program under testdata that does
// what its users do, prints "ok" and a name for each step and "done" at the end.
package clienttest
