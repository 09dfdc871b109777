package host

import "encoding/binary"

// User is InstanceOptions.User.
func (i *Instance) User() any { return i.o.User }

// Discard condemns the instance, as an error out of a call does: Healthy is
// false and further calls give ErrClosed. For owners that found the guest's
// answer to be a lie.
func (i *Instance) Discard(why error) {
	if i.dead == nil {
		i.dead = why
	}
}

// Reseed starts the generator behind random_get anew, so that a batch handed
// out again meets the same random numbers.
func (i *Instance) Reseed(seed uint64) {
	var s [32]byte
	binary.LittleEndian.PutUint64(s[:], seed)
	i.wasi.random.Seed(s)
}
