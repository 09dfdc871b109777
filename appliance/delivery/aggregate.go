package delivery

import (
	"bytes"
	"crypto/md5"
	"errors"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weirhq/weir/storage/record"
)

// The Kinesis Producer Library packs several user records into one: four
// bytes of magic, a protocol-buffers message, the MD5 of that message. Source:
// awslabs/amazon-kinesis-producer, aggregation-format.md.
var aggregateMagic = []byte{0xf3, 0x89, 0x9a, 0xc2}

// errNotAggregate means that the bytes only look like an aggregate.
var errNotAggregate = errors.New("not a KPL aggregate")

func isAggregate(data []byte) bool {
	return len(data) >= len(aggregateMagic)+md5.Size && bytes.HasPrefix(data, aggregateMagic)
}

// walkAggregate calls fn for each user record of an aggregate, in order, with
// slices of data. It reads all of the message before the first call, so
// errNotAggregate means that fn wasn't called.
func walkAggregate(data []byte, fn func(key []byte, hash record.HashKey, hasHash bool, data []byte) error) error {
	body := data[len(aggregateMagic) : len(data)-md5.Size]
	if sum := md5.Sum(body); !bytes.Equal(sum[:], data[len(data)-md5.Size:]) {
		return errNotAggregate
	}
	var keys, hashes, records [][]byte
	err := fields(body, func(n protowire.Number, value []byte, _ uint64) {
		switch n {
		case 1:
			keys = append(keys, value)
		case 2:
			hashes = append(hashes, value)
		case 3:
			records = append(records, value)
		}
	})
	if err != nil {
		return err
	}
	type user struct {
		key, data []byte
		hash      record.HashKey
		hasHash   bool
	}
	users := make([]user, 0, len(records))
	for _, r := range records {
		var u user
		var keyIndex, hashIndex uint64
		if err := fields(r, func(n protowire.Number, value []byte, v uint64) {
			switch n {
			case 1:
				keyIndex = v
			case 2:
				hashIndex, u.hasHash = v, true
			case 3:
				u.data = value
			}
		}); err != nil {
			return err
		}
		if keyIndex >= uint64(len(keys)) || u.hasHash && hashIndex >= uint64(len(hashes)) {
			return errNotAggregate
		}
		u.key = keys[keyIndex]
		if u.hasHash {
			if u.hash, err = record.ParseHashKey(string(hashes[hashIndex])); err != nil {
				return errNotAggregate
			}
		}
		users = append(users, u)
	}
	for _, u := range users {
		if err := fn(u.key, u.hash, u.hasHash, u.data); err != nil {
			return err
		}
	}
	return nil
}

// fields walks the fields of a protocol-buffers message: value is set for
// bytes, v for varints.
func fields(b []byte, fn func(n protowire.Number, value []byte, v uint64)) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errNotAggregate
		}
		b = b[n:]
		switch typ {
		case protowire.BytesType:
			value, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return errNotAggregate
			}
			fn(num, value, 0)
			b = b[n:]
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return errNotAggregate
			}
			fn(num, nil, v)
			b = b[n:]
		default:
			n := protowire.ConsumeFieldValue(num, typ, b)
			if n < 0 {
				return errNotAggregate
			}
			b = b[n:]
		}
	}
	return nil
}
