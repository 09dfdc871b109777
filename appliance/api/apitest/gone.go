package apitest

import "context"

// Gone is the context of a client that goes away while its request is being done:
// what waits on it is told at once, but it has no error yet, so that nothing is
// refused before it began.
type Gone struct{ context.Context }

// Done returns a channel that is closed.
func (Gone) Done() <-chan struct{} {
	ended := make(chan struct{})
	close(ended)
	return ended
}
