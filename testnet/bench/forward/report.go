package forward

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"weir/testnet/report"
)

const floorName = "floor"

// Report is the result of [Run]. Times are in milliseconds, sizes in bytes.
type Report struct {
	Machine  Machine   `json:"machine"`
	Began    time.Time `json:"began"`
	Elapsed  float64   `json:"elapsed_ms"`
	Duration float64   `json:"duration_ms"` // of each measurement
	Load     string    `json:"load"`        // what is published
	Pinned   bool      `json:"pinned"`      // server and generator, each to a CPU
	Floor    []Floor   `json:"floor,omitempty"`
	Rows     []Row     `json:"rows"`
}

// Machine is what the figures were measured on.
type Machine struct {
	CPU         string  `json:"cpu"`
	CPUs        int     `json:"cpus"`
	Memory      uint64  `json:"memory"`
	Kernel      string  `json:"kernel"`
	Go          string  `json:"go"`           // of the generator
	LoadAverage float64 `json:"load_average"` // of one minute, before
}

// Floor is the least that this machine needs for so many viewers.
type Floor struct {
	Viewers    int     `json:"viewers"`
	Round      int     `json:"round"`
	PerMillion float64 `json:"cpu_s_per_mpacket"`
	Share      float64 `json:"share"`   // of its CPU
	Dropped    uint64  `json:"dropped"` // by the kernel, at the receiver
}

// Limit is the side that kept a measurement from more.
type Limit string

// The sides.
const (
	LimitNone      Limit = ""
	LimitServer    Limit = "server"
	LimitGenerator Limit = "generator"
	LimitOthers    Limit = "others" // the server's CPU was not its own
)

// Row is one measurement of one server.
type Row struct {
	Server  string `json:"server"`
	Viewers int    `json:"viewers"`
	Round   int    `json:"round"`
	Joined  int    `json:"joined"`            // of the viewers
	Failure string `json:"failure,omitempty"` // of the first that did not

	PerMillion float64 `json:"cpu_s_per_mpacket"`
	Packets    float64 `json:"packets_per_s"` // to all viewers
	Lost       float64 `json:"lost"`          // share of packets
	FramesLost float64 `json:"frames_lost"`   // share of frames of video
	Lossy      int     `json:"lossy"`         // viewers that lack more than 0.1 %
	P50        float64 `json:"p50_ms"`        // one way
	P99        float64 `json:"p99_ms"`
	Max        float64 `json:"max_ms"`
	FirstP50   float64 `json:"first_frame_p50_ms"` // after the POST
	FirstP95   float64 `json:"first_frame_p95_ms"`
	Memory     float64 `json:"memory_per_viewer"` // PSS above that without viewers
	RSS        int64   `json:"rss"`

	ServerShare      float64 `json:"server_share"` // of its CPU
	GeneratorShare   float64 `json:"generator_share"`
	OthersShare      float64 `json:"others_share"`   // of the server's CPU, by other processes
	ServerDropped    uint64  `json:"server_dropped"` // datagrams, by the kernel
	GeneratorDropped uint64  `json:"generator_dropped"`
	Unopened         uint64  `json:"unopened"`  // samples that could not be decrypted
	Repeated         uint64  `json:"repeated"`  // packets that came again
	Keyframes        uint64  `json:"keyframes"` // asked of the publisher
	Limit            Limit   `json:"limit,omitempty"`
}

// Shares of a CPU from which on it counts as used up.
const (
	generatorFull = 0.9
	serverFull    = 0.95
	othersMuch    = 0.1
	mostLost      = 0.001
)

// limit is the side that limited a measurement. Others count only where it
// suffered: they also use what a server leaves of its CPU.
func (r *Row) limit() Limit {
	suffered := r.Lost >= mostLost || r.ServerDropped > 0 || r.Joined < r.Viewers
	switch {
	case r.GeneratorDropped > 0 || r.GeneratorShare >= generatorFull:
		return LimitGenerator
	case r.ServerShare >= serverFull:
		return LimitServer
	case suffered && r.OthersShare >= othersMuch:
		return LimitOthers
	case suffered:
		return LimitServer
	}
	return LimitNone
}

// names lists the servers in the order in which they were measured first.
func (r *Report) names() []string {
	var names []string
	for _, row := range r.Rows {
		if !slices.Contains(names, row.Server) {
			names = append(names, row.Server)
		}
	}
	return names
}

// sizes lists the numbers of viewers.
func (r *Report) sizes() []int {
	var sizes []int
	for _, row := range r.Rows {
		sizes = append(sizes, row.Viewers)
	}
	for _, f := range r.Floor {
		sizes = append(sizes, f.Viewers)
	}
	slices.Sort(sizes)
	return slices.Compact(sizes)
}

// median of a figure over the rounds of one server; ok is false without any.
func (r *Report) median(server string, viewers int, figure func(Row) float64) (v float64, ok bool) {
	var values []float64
	for _, row := range r.Rows {
		if row.Server == server && row.Viewers == viewers {
			values = append(values, figure(row))
		}
	}
	return middle(values)
}

func (r *Report) floorAt(viewers int) (float64, bool) {
	var values []float64
	for _, f := range r.Floor {
		if f.Viewers == viewers {
			values = append(values, f.PerMillion)
		}
	}
	return middle(values)
}

func middle(values []float64) (float64, bool) {
	if len(values) == 0 {
		return 0, false
	}
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2, true
}

// Markdown prints the tables.
func (r *Report) Markdown(w io.Writer) error {
	fmt.Fprintf(w, "# Forwarding: measured\n\n`weir-lab bench forward` on %s, %s, %d CPUs, %.0f GiB, Linux %s, generator %s, load average before %.1f. %s, %.0f s each, in turn. ",
		r.Began.Format(time.DateOnly), r.Machine.CPU, r.Machine.CPUs, float64(r.Machine.Memory)/(1<<30), r.Machine.Kernel, r.Machine.Go, r.Machine.LoadAverage, r.Load, r.Duration/1000)
	if r.Pinned {
		fmt.Fprint(w, "The server has one CPU, the generator another.\n\n")
	} else {
		fmt.Fprint(w, "Nothing was pinned: figures are not comparable.\n\n")
	}
	report.Head(w, "viewers", "server", "CPU s / Mpacket", "× floor", "packets/s", "lost, packets / frames, %", "one way, ms, p50 / p99", "MB a viewer", "first frame, ms, p50 / p95", "CPU, server / generator / others, %", "dropped, server / generator", "limit")
	for _, n := range r.sizes() {
		floor, known := r.floorAt(n)
		if known {
			fmt.Fprintf(w, "| %d | %s | %.2f | 1 | | | | | | | | |\n", n, floorName, floor)
		}
		for _, name := range r.names() {
			r.line(w, n, name, floor)
		}
	}
	r.notes(w)
	return nil
}

// line prints the medians of a server.
func (r *Report) line(w io.Writer, n int, name string, floor float64) {
	at := func(figure func(Row) float64) float64 { v, _ := r.median(name, n, figure); return v }
	if _, ok := r.median(name, n, func(Row) float64 { return 0 }); !ok {
		return
	}
	times := ""
	cost := at(func(r Row) float64 { return r.PerMillion })
	if floor > 0 {
		times = fmt.Sprintf("%.1f", cost/floor)
	}
	delay := "–" // all came too late
	if p50 := at(func(r Row) float64 { return r.P50 }); p50 > 0 {
		delay = fmt.Sprintf("%.2f / %.2f", p50, at(func(r Row) float64 { return r.P99 }))
	}
	fmt.Fprintf(w, "| %d | %s | %.2f | %s | %.0f | %.2f / %.2f | %s | %.2f | %.0f / %.0f | %.0f / %.0f / %.0f | %.0f / %.0f | %s |\n",
		n, name, cost, times, at(func(r Row) float64 { return r.Packets }),
		100*at(func(r Row) float64 { return r.Lost }), 100*at(func(r Row) float64 { return r.FramesLost }),
		delay, at(func(r Row) float64 { return r.Memory })/1e6,
		at(func(r Row) float64 { return r.FirstP50 }), at(func(r Row) float64 { return r.FirstP95 }),
		100*at(func(r Row) float64 { return r.ServerShare }), 100*at(func(r Row) float64 { return r.GeneratorShare }), 100*at(func(r Row) float64 { return r.OthersShare }),
		at(func(r Row) float64 { return float64(r.ServerDropped) }), at(func(r Row) float64 { return float64(r.GeneratorDropped) }), r.limitOf(name, n))
}

// limitOf is the limit that most rounds met.
func (r *Report) limitOf(name string, n int) Limit {
	count := map[Limit]int{}
	for _, row := range r.Rows {
		if row.Server == name && row.Viewers == n {
			count[row.Limit]++
		}
	}
	most := LimitNone
	for _, l := range []Limit{LimitNone, LimitServer, LimitGenerator, LimitOthers} {
		if count[l] > count[most] {
			most = l
		}
	}
	return most
}

func (r *Report) notes(w io.Writer) {
	fmt.Fprintf(w, "\nMedians over the rounds. The floor is an RTP header, AES-128-GCM and sendmmsg with UDP_SEGMENT to as many destinations, at the same pace. CPU is by the clock of the server's process; on loopback it includes the receiver's part of the kernel. Loss and delay are of the packets whose frames were sent within the measurement, until a second after it; delay is from the publisher's send to the kernel's receive.\n")
	for _, row := range r.Rows {
		if row.Failure != "" {
			fmt.Fprintf(w, "\n%s, %d viewers, round %d: %d joined: %s\n", row.Server, row.Viewers, row.Round, row.Joined, row.Failure)
		}
	}
	if r.Machine.LoadAverage > 0.5 {
		fmt.Fprintf(w, "\nThe machine was not idle before (load average %.1f): compare figures within this run alone.\n", r.Machine.LoadAverage)
	}
}

// Write writes forward.json, forward.md and the plot into dir.
func (r *Report) Write(dir string) error {
	return report.Write(dir, map[string]func(io.Writer) error{
		"forward.json": func(w io.Writer) error { return report.JSON(w, r) },
		"forward.md":   r.Markdown,
		"forward.svg":  r.plot,
	})
}

// Read reads a forward.json.
func Read(file string) (*Report, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	r := &Report{}
	if err := json.Unmarshal(b, r); err != nil || cmp.Or(len(r.Rows), len(r.Floor)) == 0 {
		return nil, fmt.Errorf("%w: %s is no report of bench forward", ErrInput, file)
	}
	return r, nil
}
