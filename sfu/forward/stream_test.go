package forward

import (
	"testing"
	"testing/synctest"
	"time"
)

// A stream is retired only without users, and nobody can use one that has
// ended.
func TestStreamIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStream("demo", nil, time.Now())
		time.Sleep(time.Second)
		if got := s.IdleFor(time.Now()); got != time.Second {
			t.Errorf("idle for %v since it began, want 1 s", got)
		}
		one, ok := s.Use("viewer", true)
		two, ok2 := s.Use("child", false)
		if !ok || !ok2 || s.Retire("unwatched") {
			t.Fatal("it ends while it is taken")
		}
		if users, viewers := s.Users(); len(users) != 2 || viewers != 1 {
			t.Errorf("%d users, %d viewers", len(users), viewers)
		}
		one()
		one() // a second call has no effect
		select {
		case <-s.Idle():
			t.Error("idle while a child takes it")
		default:
		}
		two()
		<-s.Idle()
		time.Sleep(time.Second)
		if got := s.IdleFor(time.Now()); got != time.Second {
			t.Errorf("idle for %v, want 1 s", got)
		}
		if !s.Retire("unwatched") || !s.Ended() {
			t.Error("it does not end when nobody takes it")
		}
		s.End("something else")
		<-s.Done()
		if s.Reason() != "unwatched" {
			t.Errorf("ended for %q, want the first reason", s.Reason())
		}
		if _, ok := s.Use("late", true); ok {
			t.Error("it is taken after its end")
		}
	})
}

// The start and the end are reported once each, and an end only after a start.
func TestStreamStartsOnce(t *testing.T) {
	now := time.Unix(1, 0)
	s := NewStream("demo", nil, now)
	if !s.Start(now) || s.Start(now) {
		t.Error("a start is told other than once")
	}
	if lasted, started := s.Finish(now.Add(time.Minute)); !started || lasted != time.Minute {
		t.Errorf("lasted %v, %v", lasted, started)
	}
	if _, started := s.Finish(now); started || s.Start(now) {
		t.Error("told again after its end")
	}
	never := NewStream("demo", nil, now)
	if _, started := never.Finish(now); started || never.Start(now) {
		t.Error("a stream that sent nothing has an end to tell, or begins after it")
	}
}

// The rates of a stream include the headers of IP and UDP.
func TestStreamRates(t *testing.T) {
	track := vp8Track()
	up := track.Attach(never)
	now := time.Unix(1, 0)
	s := NewStream("demo", []*Track{track}, now)
	s.Sample(now)
	var seq uint16
	for range 40 { // 10 s of 100 packets/s
		now = now.Add(250 * time.Millisecond)
		for range 25 {
			seq++
			up.Forward(packet(seq, 0, make([]byte, 1000)), now)
		}
		s.Sample(now)
	}
	bits, packets := s.Rates()
	if want := int64(100 * 8 * (1000 + packetOverhead)); packets < 98 || packets > 101 || bits < want*98/100 || bits > want*101/100 {
		t.Errorf("%d bit/s, %d packets/s", bits, packets)
	}
}
