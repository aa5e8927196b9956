package term

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// A progress is one line on a terminal that shows the state of long work, and
// its duration. On anything else than a terminal it prints nothing. Other
// output to the same terminal goes through its Write, so that the two are not
// mixed.
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

// NewProgress starts a progress line on w, until Close.
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

// Set sets the text of the line.
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

// Close removes the line.
func (p *progress) Close() {
	p.mu.Lock()
	p.clear()
	p.text, p.live = "", false
	p.mu.Unlock()
	p.once.Do(func() { close(p.stop) })
	<-p.ended
}

// clear and draw are called with mu held. Their write errors are ignored: the
// terminal has gone then.
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
