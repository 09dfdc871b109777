//go:build tools

// Package tools pins the programs that the tests of deliveries start. It is a
// module of its own so that what they need stays out of the product's go.sum.
package tools

import _ "github.com/versity/versitygw/cmd/versitygw"
