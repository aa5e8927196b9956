package term

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// A progress is one line on a terminal that tells how far long work is, and for
// how long it has been going on. On anything else than a terminal it prints
// nothing. What else is printed there meanwhile goes through its Write, or the
// two would be mixed up.
type progress struct {
	w     io.Writer
	began time.Time
	once  sync.Once // of closing stop
	stop  chan struct{}
	ended chan struct{}

	mu   sync.Mutex
	text string // "": the line is empty
	live bool   // on a terminal, and not closed
}

// NewProgress is one on w, until close.
func NewProgress(w io.Writer) *progress {
	return startProgress(w, IsTerminal(w) && os.Getenv("TERM") != "dumb")
}

func startProgress(w io.Writer, live bool) *progress {
	p := &progress{w: w, live: live, began: time.Now(), stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		if !live {
			return
		}
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.mu.Lock()
				p.draw()
				p.mu.Unlock()
			case <-p.stop:
				return
			}
		}
	}()
	return p
}

// Set is what the line says from now on.
func (p *progress) Set(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = fmt.Sprintf(format, args...)
	p.draw()
}

// Write prints above the line.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	n, err := p.w.Write(b)
	p.draw()
	return n, err
}

// Close takes the line away.
func (p *progress) Close() {
	p.mu.Lock()
	p.clear()
	p.text, p.live = "", false
	p.mu.Unlock()
	p.once.Do(func() { close(p.stop) })
	<-p.ended
}

// clear and draw are called with mu held. What was drawn stays if the terminal
// has gone: there is nobody to tell.
func (p *progress) clear() {
	if p.live && p.text != "" {
		_, _ = io.WriteString(p.w, "\r\x1b[K")
	}
}

func (p *progress) draw() {
	if p.live && p.text != "" {
		_, _ = fmt.Fprintf(p.w, "\r\x1b[K%s, %v", p.text, time.Since(p.began).Round(time.Second))
	}
}
