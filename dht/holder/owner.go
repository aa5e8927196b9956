package holder

import (
	"container/heap"
	"container/list"

	"github.com/libp2p/go-libp2p/core/peer"
)

// An owner is a node that has brought records to a table: its own, or those of
// others that it handed over. To make room, a table drops a record of the owner
// with most records. The time to live plays no part: each publisher chooses its
// own.
type owner struct {
	id      peer.ID
	records list.List // of *Held, those longest in the table first
	index   int       // in the heap
}

// oldest is the owner's record that has been in the table longest.
func (o *owner) oldest() *Held { return o.records.Front().Value.(*Held) }

// owners is a heap with the owner of most records on top, and of equal ones the
// one whose oldest record came first.
type owners struct {
	by   map[peer.ID]*owner
	heap ownerHeap
	last uint64 // number of the latest record
}

// count is how many records id has brought.
func (o *owners) count(id peer.ID) int {
	if at := o.by[id]; at != nil {
		return at.records.Len()
	}
	return 0
}

func (o *owners) add(h *Held) {
	at := o.by[h.owner]
	if at == nil {
		at = &owner{id: h.owner}
		o.by[h.owner] = at
	}
	o.last++
	h.number = o.last
	h.owned = at.records.PushBack(h)
	if at.records.Len() == 1 {
		heap.Push(&o.heap, at)
	} else {
		heap.Fix(&o.heap, at.index)
	}
}

func (o *owners) remove(h *Held) {
	at := o.by[h.owner]
	at.records.Remove(h.owned)
	if at.records.Len() == 0 {
		heap.Remove(&o.heap, at.index)
		delete(o.by, h.owner)
		return
	}
	heap.Fix(&o.heap, at.index)
}

// before reports whether a has to make room before b.
func (o *owners) before(a, b *Held) bool {
	if m, n := o.count(a.owner), o.count(b.owner); m != n {
		return m > n
	}
	return a.number < b.number
}

type ownerHeap []*owner

func (h ownerHeap) Len() int { return len(h) }
func (h ownerHeap) Less(i, j int) bool {
	if m, n := h[i].records.Len(), h[j].records.Len(); m != n || m == 0 {
		return m > n
	}
	return h[i].oldest().number < h[j].oldest().number
}
func (h ownerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *ownerHeap) Push(x any) {
	o := x.(*owner)
	o.index = len(*h)
	*h = append(*h, o)
}
func (h *ownerHeap) Pop() any {
	old := *h
	o := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return o
}
