// Package appliance is the composition root: it opens the parts in order, hands
// them to each other, and stops them in the reverse order.
//
// It owns the order, the routes of the one port and the layout of the data
// directory. It never does a part's work, and no part imports it: the only users
// are the command and the tests of the whole.
package appliance
