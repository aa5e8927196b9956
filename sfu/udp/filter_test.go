package udp

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/pion/stun/v4"
)

// request makes a connectivity check.
func request(t testing.TB, user, pwd string, more ...stun.Setter) []byte {
	t.Helper()
	m, err := stun.Build(append(append([]stun.Setter{stun.TransactionID, stun.BindingRequest, stun.NewUsername(user)}, more...), stun.NewShortTermIntegrity(pwd), stun.Fingerprint)...)
	if err != nil {
		t.Fatal(err)
	}
	return m.Raw
}

// at makes a source address that depends on n.
func at(n int) endpoint {
	return endpoint{AddrPort: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n / 50_000)}), uint16(1000+n%50_000))}
}

func dropped(g *filter) map[string]int64 {
	all := map[string]int64{}
	for why, name := range dropNames {
		if n := g.dropped[why].Load(); n > 0 {
			all[name] = n
		}
	}
	return all
}

func TestFilterLetsInWhoHasThePassword(t *testing.T) {
	g := newFilter()
	tr := g.newPeer()
	tr.Expect("here", "password of 22 letters", time.Now())
	valid := request(t, "here:there", "password of 22 letters")
	for _, c := range []struct {
		name     string
		datagram []byte
		from     int
		in       bool
		why      string
	}{
		{"DTLS before any check", record(dtlsHandshake, 0, fragment0(1, 60, 0, 60)...), 0, false, "unknown_source"},
		{"an answer that nobody asked for", stun.MustBuild(stun.TransactionID, stun.BindingSuccess).Raw, 0, false, "unknown_source"},
		{"a check for somebody else", request(t, "nobody:there", "x"), 0, false, "stun_user"},
		{"a check without a name", stun.MustBuild(stun.TransactionID, stun.BindingRequest).Raw, 0, false, "stun_user"},
		{"a check with a wrong password", request(t, "here:there", "guess"), 0, false, "stun_integrity"},
		{"a check without one", stun.MustBuild(stun.TransactionID, stun.BindingRequest, stun.NewUsername("here:there")).Raw, 0, false, "stun_integrity"},
		{"a check cut short", valid[:len(valid)-1], 0, false, "stun_malformed"},
		{"a TURN allocation", stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodAllocate, stun.ClassRequest)).Raw, 0, false, "stun_malformed"},
		{"an error response", stun.MustBuild(stun.TransactionID, stun.BindingError).Raw, 0, false, "stun_malformed"},
		{"nothing known", []byte{100, 1, 2}, 0, false, "protocol"},
		{"a valid check", valid, 0, true, ""},
		{"DTLS from its address", record(dtlsHandshake, 0, fragment0(1, 60, 0, 60)...), 0, true, ""},
		{"an answer from its address", stun.MustBuild(stun.TransactionID, stun.BindingSuccess).Raw, 0, true, ""},
		{"DTLS from another address", record(dtlsHandshake, 0, fragment0(1, 60, 0, 60)...), 1, false, "unknown_source"},
		{"RTP", []byte{0x80, 96, 0, 1}, 1, true, ""},
	} {
		before := dropped(g)
		n := g.admit(append([]byte(nil), c.datagram...), at(c.from), netip.Addr{})
		if (n == len(c.datagram)) != c.in || !c.in && n != 0 {
			t.Errorf("%s: %d of %d bytes pass, want in %v", c.name, n, len(c.datagram), c.in)
		}
		after := dropped(g)
		if c.why != "" && after[c.why] != before[c.why]+1 {
			t.Errorf("%s: counted %v after %v, want one more %s", c.name, after, before, c.why)
		}
	}
	tr.Close()
	if n := g.admit(valid, at(0), netip.Addr{}); n != 0 || len(g.bySource)+len(g.byUfrag) != 0 {
		t.Errorf("after close %d bytes pass, %d addresses and %d names are known", n, len(g.bySource), len(g.byUfrag))
	}
}

// A peer may move, and restart ICE, but not make pion keep an unbounded number
// of addresses.
func TestFilterBoundsSourceAddresses(t *testing.T) {
	g := newFilter()
	tr := g.newPeer()
	tr.Expect("a", "pwd", time.Now())
	check := request(t, "a:b", "pwd")
	now := time.Now()
	try := func(n int) drop { return g.check(check, at(n), netip.Addr{}, now) }
	in := 0
	for n := range 5000 {
		if try(n) < 0 {
			in++
		}
	}
	if in != freshSources {
		t.Errorf("%d addresses let in at once, want %d", in, freshSources)
	}
	if try(3) >= 0 {
		t.Error("an address that was let in is not any more")
	}
	now = now.Add(freshWindow)
	if try(6000) >= 0 {
		t.Error("a minute later the peer cannot move")
	}
	for n := range 100_000 {
		now = now.Add(time.Second)
		if try(10_000+n%50_000) < 0 {
			in++
		}
	}
	if len(tr.sources) != maxSources || len(g.bySource) != maxSources {
		t.Errorf("over a day %d addresses were let in, want %d", len(tr.sources), maxSources)
	}
	if g.check(check, at(60_000), netip.Addr{}, now) != dropSources {
		t.Error("past the bound: not dropped for it")
	}

	now = now.Add(freshWindow + 1)
	tr.Expect("c", "other", now) // an ICE restart
	if try(3) != dropUser {
		t.Error("the credentials of before hold after a restart")
	}
	check = request(t, "c:d", "other")
	if why := g.check(check, at(60_001), netip.Addr{}, now); why >= 0 {
		t.Errorf("after a restart the peer is not let in: %s", dropNames[why])
	}
}

// Two transports of one peer may share its address, for example when both ends
// of a link open one at once; the one with the latest check has it.
func TestFilterSharesAnAddress(t *testing.T) {
	g := newFilter()
	one, two := g.newPeer(), g.newPeer()
	one.Expect("one", "pwd", time.Now())
	two.Expect("two", "pwd", time.Now())
	for range 3 * freshSources {
		for _, user := range []string{"one:x", "two:x"} {
			if why := g.check(request(t, user, "pwd"), at(0), netip.Addr{}, time.Now()); why >= 0 {
				t.Fatalf("%s: dropped, %s", user, dropNames[why])
			}
		}
	}
	one.Close()
	if r := g.bySource[at(0)]; r == nil || r.peer != two {
		t.Error("closing one peer has taken the other's address")
	}
}

// Only a valid check counts as consent, by the monotonic clock.
func TestFilterConsent(t *testing.T) {
	g := newFilter()
	tr := g.newPeer()
	tr.Expect("a", "pwd", time.Now())
	began := time.Now()
	if _, ok := tr.Silence(began); ok {
		t.Error("consent before the first check")
	}
	if why := g.check(request(t, "a:b", "pwd"), at(0), netip.Addr{}, began); why >= 0 {
		t.Fatal(dropNames[why])
	}
	for range 50 {
		g.admit([]byte{0x80, 96, 0, 1}, at(0), netip.Addr{})
		g.admit(stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodBinding, stun.ClassIndication)).Raw, at(0), netip.Addr{})
		g.check(request(t, "a:b", "guess"), at(0), netip.Addr{}, began.Add(20*time.Second))
	}
	if d, ok := tr.Silence(began.Add(31 * time.Second)); !ok || d != 31*time.Second {
		t.Errorf("silent for %v, %v; want 31 s", d, ok)
	}
}

// The answer of a peer that this node has sent a check to is admitted.
func TestFilterLetsInWhoIsAsked(t *testing.T) {
	g := newFilter()
	tr := g.newPeer()
	tr.Expect("here", "pwd", time.Now())
	answer := stun.MustBuild(stun.TransactionID, stun.BindingSuccess).Raw
	if g.admit(answer, at(0), netip.Addr{}) != 0 {
		t.Error("an answer passes that was not asked for")
	}
	g.sent(request(t, "there:here", "theirs"), at(0))
	if g.admit(answer, at(0), netip.Addr{}) == 0 {
		t.Error("an answer does not pass")
	}
	if _, ok := tr.Silence(time.Now()); ok {
		t.Error("an answer counts as consent")
	}
}

// A peer that is asked only what it asks gets one check for each valid one of
// its own, at the address it sent that from and from where it was sent to.
func TestFilterChecksBack(t *testing.T) {
	g := newFilter()
	p := g.newPeer()
	p.Triggered()
	p.Expect("here", "pwd", time.Now())
	first, second := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	back := request(t, "there:here", "theirs")
	come := func(from int, pwd string, local netip.Addr) {
		t.Helper()
		if n := g.admit(request(t, "here:there", pwd), at(from), local); (n > 0) != (pwd == "pwd") {
			t.Fatalf("a check with the password %q: %d bytes pass", pwd, n)
		}
	}
	goes := func(to int, want ...netip.Addr) {
		t.Helper()
		for _, from := range want {
			if control, ok := g.sent(back, at(to)); !ok || string(control) != string(sendFrom(from)) {
				t.Errorf("a check to address %d: %v, leaves with %x, want from %v", to, ok, control, from)
			}
		}
		if _, ok := g.sent(back, at(to)); ok {
			t.Errorf("more than %d checks to address %d", len(want), to)
		}
	}
	goes(0)
	come(0, "guess", first)
	goes(0)
	come(0, "pwd", first)
	come(0, "pwd", second)
	goes(1)
	goes(0, first, second)
	if n := g.admit(stun.MustBuild(stun.TransactionID, stun.BindingSuccess).Raw, at(0), netip.Addr{}); n == 0 {
		t.Error("the answer to a check does not pass")
	}
	for range 100 {
		come(0, "pwd", first)
	}
	goes(0, slices.Repeat([]netip.Addr{first}, maxOwed)...)

	other := g.newPeer() // one that shares the address takes nothing from it
	other.Triggered()
	other.Expect("other", "pwd", time.Now())
	come(0, "pwd", first)
	if _, ok := g.sent(request(t, "there:other", "theirs"), at(0)); ok {
		t.Error("a check for another peer's")
	}
	goes(0, first)
}

// The answer to a check leaves from the check's destination address, and media
// from the address that the peer has nominated.
func TestFilterAnswersFromWhereItWasAsked(t *testing.T) {
	g := newFilter()
	tr := g.newPeer()
	tr.Expect("a", "pwd", time.Now())
	first, second := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::2")
	now := time.Now()
	arrive := func(local netip.Addr, more ...stun.Setter) []byte {
		t.Helper()
		r := request(t, "a:b", "pwd", more...)
		if why := g.check(r, at(0), local, now); why >= 0 {
			t.Fatal(dropNames[why])
		}
		answer := append([]byte(nil), r...)
		answer[0], answer[1] = 1, 1
		return answer
	}
	use := stun.RawAttribute{Type: stun.AttrUseCandidate}
	toFirst, toSecond := arrive(first), arrive(second)
	for _, c := range []struct {
		name   string
		answer []byte
		from   netip.Addr
	}{{"first", toFirst, first}, {"second", toSecond, second}} {
		if got, _ := g.sent(c.answer, at(0)); string(got) != string(sendFrom(c.from)) || len(got) == 0 {
			t.Errorf("the %s answer leaves with %x, want from %v", c.name, got, c.from)
		}
	}
	for _, c := range []struct {
		name string
		do   func()
		want netip.Addr
	}{
		{"no nomination yet", func() {}, second},
		{"nominated", func() { arrive(first, use) }, first},
		{"another is checked", func() { arrive(second) }, first},
		{"the nominated one is silent", func() { now = now.Add(nominationLasts + 1); arrive(second) }, second},
	} {
		c.do()
		if got := g.control(at(0)); string(got) != string(sendFrom(c.want)) {
			t.Errorf("%s: media leaves with %x, want from %v", c.name, got, c.want)
		}
	}
}

func FuzzFilter(f *testing.F) {
	f.Add(request(f, "a:b", "pwd"))
	f.Add(request(f, "nobody:b", "pwd"))
	f.Add(stun.MustBuild(stun.TransactionID, stun.BindingSuccess).Raw)
	f.Add(record(dtlsHandshake, 0, fragment0(1, 60, 0, 60)...))
	f.Add(slices.Concat(record(dtlsHandshake, 1, make([]byte, 40)...), record(dtlsAlert, 0, 2, 0)))
	f.Add([]byte{0x80, 96})
	f.Fuzz(func(t *testing.T, b []byte) {
		g := newFilter()
		tr := g.newPeer()
		tr.Expect("a", "pwd", time.Now())
		known := g.check(request(t, "a:b", "pwd"), at(0), netip.Addr{}, time.Now()) < 0
		if n := g.admit(append([]byte(nil), b...), at(0), netip.Addr{}); n > len(b) || !known {
			t.Errorf("%d of %d bytes pass", n, len(b))
		}
		if isSTUN(b) {
			g.sent(b, at(1))
		}
		if len(g.bySource) > 2 {
			t.Errorf("%d addresses from two datagrams", len(g.bySource))
		}
	})
}
