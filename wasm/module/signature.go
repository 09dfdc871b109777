package module

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// SignaturePolicy says what happens to modules without a signature by a
// trusted key.
type SignaturePolicy string

// The signature policies.
const (
	SignaturesOff     SignaturePolicy = "off"     // signatures are not looked at
	SignaturesWarn    SignaturePolicy = "warn"    // accepted, with a warning that stays
	SignaturesRequire SignaturePolicy = "require" // refused
)

// signed is what an Ed25519 signature covers: module and manifest, each by
// its SHA-256, under a line that no other signature begins with.
func signed(moduleDigest, manifestText []byte) []byte {
	m := sha256.Sum256(manifestText)
	return fmt.Appendf(nil, "weir module 1\n%x\n%x\n", moduleDigest, m)
}

// Sign returns the Ed25519 signature over a module and its manifest, both as
// the bytes of their files.
func Sign(key ed25519.PrivateKey, wasm, manifestText []byte) []byte {
	d := sha256.Sum256(wasm)
	return ed25519.Sign(key, signed(d[:], manifestText))
}

// EncodeSignature returns a signature as the one line of a signature file.
func EncodeSignature(sig []byte) []byte {
	return []byte("weir-signature-1 " + base64.StdEncoding.EncodeToString(sig) + "\n")
}

// DecodeSignature reads what EncodeSignature wrote.
func DecodeSignature(text []byte) ([]byte, error) {
	b64, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "weir-signature-1 ")
	sig, err := base64.StdEncoding.DecodeString(b64)
	if !ok || err != nil || len(sig) != ed25519.SignatureSize {
		return nil, fmt.Errorf("%w: not a signature file; expecting one line, weir-signature-1 and 64 bytes in base64", ErrSignature)
	}
	return sig, nil
}

// Fingerprint names a public key: the first 16 hex digits of its SHA-256.
func Fingerprint(key ed25519.PublicKey) string {
	d := sha256.Sum256(key)
	return hex.EncodeToString(d[:8])
}

// GenerateKey makes a key pair and returns both halves as PEM, in the forms
// that openssl reads too.
func GenerateKey() (private, public []byte, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	p, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	q, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, nil, fmt.Errorf("generate key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: p}), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: q}), nil
}

// ParsePrivateKey reads an Ed25519 private key in PEM.
func ParsePrivateKey(text []byte) (ed25519.PrivateKey, error) {
	b, _ := pem.Decode(text)
	if b == nil || b.Type != "PRIVATE KEY" {
		return nil, errors.New("not a private key in PEM; expecting the file that weir module keygen wrote")
	}
	k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	e, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("private key is a %T; expecting Ed25519", k)
	}
	return e, nil
}

// ParsePublicKey reads an Ed25519 public key in PEM.
func ParsePublicKey(text []byte) (ed25519.PublicKey, error) {
	b, _ := pem.Decode(text)
	if b == nil || b.Type != "PUBLIC KEY" {
		return nil, errors.New("not a public key in PEM; expecting the .pub file that weir module keygen wrote")
	}
	k, err := x509.ParsePKIXPublicKey(b.Bytes)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	e, ok := k.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("public key is a %T; expecting Ed25519", k)
	}
	return e, nil
}

// verify applies the policy. It returns the fingerprint of the key that
// signed, or a warning, or ErrSignature.
func (c *Catalog) verify(moduleDigest, manifestText, sig []byte) (signedBy, warning string, err error) {
	if c.o.Signatures == SignaturesOff {
		return "", "", nil
	}
	for _, key := range c.o.TrustedKeys {
		if len(sig) == ed25519.SignatureSize && ed25519.Verify(key, signed(moduleDigest, manifestText), sig) {
			return Fingerprint(key), "", nil
		}
	}
	problem := "there is none"
	if len(sig) > 0 {
		problem = fmt.Sprintf("it fits none of the %d trusted keys", len(c.o.TrustedKeys))
	}
	if c.o.Signatures == SignaturesWarn {
		return "", "signature: " + problem, nil
	}
	return "", "", fmt.Errorf("%w: %s; wasm.signatures is require", ErrSignature, problem)
}
