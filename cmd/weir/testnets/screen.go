package testnets

import (
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"
)

// A screen prints lines in order of time though they come from several
// goroutines. flush prints the lines buffered so far.
type screen struct {
	out    io.Writer
	began  time.Time
	colour bool

	mu    sync.Mutex
	lines []screenLine
}

type screenLine struct {
	at   time.Time
	who  string
	text []string // the first line, and its continuation lines
}

// newScreen prints with colours if out is a terminal that wants them.
func newScreen(out io.Writer) *screen {
	s := &screen{out: out, began: time.Now()}
	if f, ok := out.(*os.File); ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" {
		info, err := f.Stat()
		s.colour = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return s
}

func (s *screen) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// title prints at once.
func (s *screen) title(format string, args ...any) {
	fmt.Fprintf(s.out, "\n%s\n", s.paint(bold, fmt.Sprintf(format, args...)))
}

func (s *screen) say(at time.Time, who, format string, args ...any) {
	s.add(screenLine{at, who, []string{fmt.Sprintf(format, args...)}})
}

func (s *screen) add(l screenLine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, l)
}

// flush prints the buffered lines, earliest first.
func (s *screen) flush() {
	s.mu.Lock()
	lines := s.lines
	s.lines = nil
	s.mu.Unlock()
	slices.SortStableFunc(lines, func(a, b screenLine) int { return a.at.Compare(b.at) })
	for _, l := range lines {
		at := fmt.Sprintf("%6.2f s", l.at.Sub(s.began).Seconds())
		fmt.Fprintf(s.out, "%s  %s  %s\n", s.paint(dim, at), s.paint(cyan, fmt.Sprintf("%-9s", l.who)), l.text[0])
		for _, more := range l.text[1:] {
			fmt.Fprintf(s.out, "%21s%s\n", "", s.paint(dim, more))
		}
	}
}

// ANSI codes (ECMA-48 SGR).
const (
	bold = "1"
	dim  = "2"
	cyan = "36"
)
