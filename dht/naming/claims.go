package naming

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/holder"
	"weir/dht/pb"
)

const (
	// claimTTL is how long a holder remembers a pending claim: until the
	// publisher's record is certainly held.
	claimTTL = 15 * time.Second

	maxClaims     = 16_384 // in a holder
	maxClaimsPeer = 512    // of one peer
)

// claims are the pending claims of this node, and those that others have sent
// to it as a holder. The zero value is ready for use. Time is passed in.
type claims struct {
	mu     sync.Mutex
	mine   map[holder.Topic]*ownClaim
	topics map[holder.Topic]map[peer.ID]time.Time // of others, with the time of receipt
	peers  map[peer.ID]int                        // number of each one's claims in topics
	total  int
}

// An ownClaim is this node's own claim to one name, from its first question
// until the stream has ended.
type ownClaim struct {
	settled bool          // the name is this node's
	rival   peer.ID       // the node it gave way to; then it never settles
	lost    chan struct{} // closed once rival is set
	right   []byte        // by which its publisher has the name; empty: it came first
	since   time.Time     // when its publisher got it
}

// begin makes a claim of this node's own, unless there is one.
func (c *claims) begin(topic holder.Topic, right []byte) (own *ownClaim, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mine[topic] != nil {
		return nil, false
	}
	if c.mine == nil {
		c.mine = make(map[holder.Topic]*ownClaim)
	}
	own = &ownClaim{lost: make(chan struct{}), right: right}
	c.mine[topic] = own
	return own, true
}

// settle makes the name this node's, unless it gave way to rival meanwhile.
func (c *claims) settle(now time.Time, own *ownClaim) (rival peer.ID, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	own.settled, own.since = own.rival == "", now
	return own.rival, own.settled
}

// pass gives the name, if it is this node's, to another publisher here.
func (c *claims) pass(now time.Time, topic holder.Topic, right []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if own := c.mine[topic]; own != nil && own.settled {
		own.right, own.since = right, now
	}
}

// end gives the claim up.
func (c *claims) end(topic holder.Topic, own *ownClaim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mine[topic] == own {
		delete(c.mine, topic)
	}
}

// held returns for how long topic's name has been this node's, 0 if it is not,
// and whether by the right that from proves.
func (c *claims) held(now time.Time, topic holder.Topic, from peer.ID, proof []byte) (age time.Duration, same bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := c.mine[topic]
	if own == nil || !own.settled {
		return 0, false
	}
	same = len(own.right) > 0 && hmac.Equal(proof, prove(own.right, topic, from))
	return max(now.Sub(own.since), time.Millisecond), same
}

// prove makes the proof that from has right to topic's name.
func prove(right []byte, topic holder.Topic, from peer.ID) []byte {
	if len(right) == 0 {
		return nil
	}
	mac := hmac.New(sha256.New, right)
	fmt.Fprintf(mac, "weir-right %s %s", topic, []byte(from)) // topics have no spaces
	return mac.Sum(nil)
}

// yield gives up the claim to topic's name that this node has settled.
func (c *claims) yield(topic holder.Topic) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.mine, topic)
}

// meet answers from, which asks for topic's name or claims it, with the state
// of the own claim of this node, self. Of two pending claims, the one of the
// larger ID gives way, unless the name is its own already.
func (c *claims) meet(topic holder.Topic, self, from peer.ID, taking bool) pb.ClaimReply_Own {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch own := c.mine[topic]; {
	case own == nil:
		return pb.ClaimReply_FREE
	case own.settled:
		return pb.ClaimReply_PUBLISHED
	case own.rival != "":
		return pb.ClaimReply_YIELDED
	case taking && from < self:
		own.rival = from
		close(own.lost)
		return pb.ClaimReply_YIELDED
	}
	return pb.ClaimReply_TAKING
}

// note remembers from's pending claim to topic's stream.
func (c *claims) note(now time.Time, topic holder.Topic, from peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.topics == nil {
		c.topics, c.peers = make(map[holder.Topic]map[peer.ID]time.Time), make(map[peer.ID]int)
	}
	if _, known := c.topics[topic][from]; !known {
		if c.peers[from] >= maxClaimsPeer {
			c.dropOldest(from)
		} else if c.total >= maxClaims {
			c.expire(now)
			if c.total >= maxClaims {
				c.dropOldest(c.fullest())
			}
		}
		c.peers[from]++
		c.total++
	}
	if c.topics[topic] == nil {
		c.topics[topic] = make(map[peer.ID]time.Time)
	}
	c.topics[topic][from] = now
}

// drop forgets a claim that note remembered.
func (c *claims) drop(topic holder.Topic, from peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(topic, from)
}

// of returns the nodes with a pending claim to topic's stream, and each claim's
// age.
func (c *claims) of(now time.Time, topic holder.Topic) map[peer.ID]time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[peer.ID]time.Duration)
	for p, at := range c.topics[topic] {
		if age := now.Sub(at); age < claimTTL {
			all[p] = age
		} else {
			c.remove(topic, p)
		}
	}
	return all
}

// sweep drops expired claims.
func (c *claims) sweep(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expire(now)
}

// The methods below are called with mu held.

func (c *claims) expire(now time.Time) {
	for topic, m := range c.topics {
		for p, at := range m {
			if now.Sub(at) >= claimTTL {
				c.remove(topic, p)
			}
		}
	}
}

func (c *claims) remove(topic holder.Topic, p peer.ID) {
	if _, known := c.topics[topic][p]; !known {
		return
	}
	delete(c.topics[topic], p)
	if len(c.topics[topic]) == 0 {
		delete(c.topics, topic)
	}
	c.total--
	if c.peers[p]--; c.peers[p] == 0 {
		delete(c.peers, p)
	}
}

// fullest is the node with most claims, whose oldest is dropped first.
func (c *claims) fullest() (most peer.ID) {
	for p, count := range c.peers {
		if most == "" || count > c.peers[most] || count == c.peers[most] && p < most {
			most = p
		}
	}
	return most
}

func (c *claims) dropOldest(p peer.ID) {
	var oldest holder.Topic
	var since time.Time
	for topic, m := range c.topics {
		if at, ok := m[p]; ok && (oldest == "" || at.Before(since)) {
			oldest, since = topic, at
		}
	}
	c.remove(oldest, p)
}
