package artifact

// table are the nodes of a memory, the root first, and their names.
type table struct {
	nodes []node
	names string
}

// nodeBytes is what a node holds in memory beside its name.
const nodeBytes = 64

func (t *table) cost() int64 { return int64(len(t.nodes))*nodeBytes + int64(len(t.names)) }
