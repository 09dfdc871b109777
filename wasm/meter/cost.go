package meter

const (
	// freeCost is the cost up to which a function that calls little is charged
	// by its callers and not at its own entry. An indirect call, whose target
	// is not known, is charged this much.
	freeCost = 64
	// freeHeight and freeSlots bound the functions that don't count depth:
	// they call only such functions, at most this many deep, with frames of
	// at most this many values. So they are the last few frames of any stack.
	freeHeight = 8
	freeSlots  = 256
	// wholeCost is the cost up to which a turn of a loop is charged in full,
	// and beyond it a loopShare-th of the rest is. Few turns run the whole
	// of a large loop: Go's compiler has each function in one loop, whose
	// every turn runs one stretch of it.
	wholeCost = 32
	loopShare = 16
	// slotsPerDepth is how many values of a frame one unit of depth stands for.
	slotsPerDepth = 64
)

// settleCosts decides for each function whether it counts depth and whether
// it charges its own entry, and completes the cost of each region.
func (m *module) settleCosts(bodies []body) {
	for i := range bodies {
		m.settle(bodies, &bodies[i])
	}
}

func (m *module) settle(bodies []body, b *body) {
	b.settled = 1
	b.counted = b.indirect || b.slots > freeSlots
	for i := range b.regions {
		reg := &b.regions[i]
		for _, f := range reg.callee {
			c := &bodies[int(f)-m.importedFunctions]
			if c.settled == 0 {
				m.settle(bodies, c)
			}
			// A callee under way is a caller of this function too: all of a cycle count.
			if c.settled == 1 || c.counted {
				b.counted = true
				continue
			}
			b.height = max(b.height, c.height+1)
			if !c.charged {
				reg.cost += c.cost
			}
		}
	}
	b.counted = b.counted || b.height > freeHeight
	for i := range b.regions[1:] {
		reg := &b.regions[1+i]
		if reg.cost > wholeCost {
			reg.cost = wholeCost + (reg.cost-wholeCost)/loopShare
		}
	}
	b.cost = b.regions[0].cost
	b.charged = b.counted || b.cost > freeCost
	// Where a loop is entered first of all, its header charges the entry too,
	// unless that would charge much with each turn that is due only once.
	if loop := &b.regions[b.first]; b.first != 0 {
		if b.charged && b.cost <= 12+loop.cost/16 {
			loop.cost += b.cost
		} else {
			b.first = 0
		}
	}
	b.settled = 2
}
