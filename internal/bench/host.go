package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"outpost.run/outpost/sandbox"
)

// spending is what a side's turns used of the host.
type spending struct {
	all    time.Duration // by the server and its machines
	parts  processor     // of it
	kernel time.Duration // by the host's kernel threads
}

// cpu measures what the host spends on create + exec + reset, all that goes on after the answer included.
func (s *session) cpu(ctx context.Context) error {
	const language = "python"
	s.say("processor time of the host, %s", language)
	execute := s.executeSide(language)
	sides := append(s.bareSides(language, false), execute)
	spent := make([]spending, len(sides))
	for i, x := range sides {
		x.run = s.spending(x.run, &spent[i])
	}
	if err := s.alternate(ctx, Plan{Clients: 1, Count: s.Runs}, sides...); err != nil {
		return err
	}
	rows, err := s.rows(language, "busy", sides...)
	if err != nil {
		return err
	}
	last := len(rows) - 1
	each := func(d time.Duration) float64 { return inMS(d / time.Duration(rows[last].Runs)) }
	r, ours := rows[last], spent[last]
	all, program := each(ours.all), execute.tally.cpu/float64(r.Runs)
	r.Figure = &Figure{Unit: "ms of processor time beside the program's own", Value: rounded(all - program)}
	r.Note = fmt.Sprintf("all %.2f: server %.2f, machines %.2f by their control groups; the program's own by its results %.2f",
		all, each(ours.parts.server), each(ours.parts.machines), program)
	r.atMost("ms, first", 3, r.Figure.Value)
	r.atMost("ms, then", 2, r.Figure.Value)
	if last > 0 {
		bare := each(sides[0].sample.ChildrenCPU) // as many runs
		rows[0].Figure = &Figure{Unit: "ms of processor time", Value: bare}
		r.Note += fmt.Sprintf("; %.2f more than the same program bare; the host's kernel threads %.2f, beside bare %.2f",
			all-bare, each(ours.kernel), each(spent[0].kernel))
	}
	s.put(rows...)
	return nil
}

// spending adds to sum what the turns of run use.
func (s *session) spending(run func(context.Context, Plan) (Sample, error), sum *spending) func(context.Context, Plan) (Sample, error) {
	return func(ctx context.Context, p Plan) (Sample, error) {
		before, err := s.meter.processor()
		kernel, wrong := kernelThreads()
		if err = errors.Join(err, wrong); err != nil {
			return Sample{}, err
		}
		sample, err := run(ctx, p)
		if err == nil {
			err = s.rest(ctx) // the reset goes on after the answer
		}
		if err != nil {
			return sample, err
		}
		after, err := s.meter.processor()
		later, wrong := kernelThreads()
		sum.all += after.sum(before)
		sum.parts = sum.parts.plus(after, before)
		sum.kernel += later - kernel
		return sample, errors.Join(err, wrong)
	}
}

// density measures the memory of machines that live and do nothing.
func (s *session) density(ctx context.Context) (err error) {
	const language, makers, diskMB = "python", 4, 32 // a stateful sandbox's disk is promised in full: the usual 512 MB are too much for 1,000
	n := s.Machines
	s.say("memory of %d idle machines", n)
	if err := s.rest(ctx); err != nil {
		return err
	}
	before, err := s.meter.memory()
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var made []string
	sample, err := Plan{Clients: makers, Count: n}.Run(ctx, func(ctx context.Context) error {
		box, err := s.server.Client.Create(ctx, sandbox.CreateRequest{Language: pointer(language), Mode: pointer(string(sandbox.Stateful)),
			ResourceLimits: &sandbox.LimitsRequest{DiskMB: pointer(diskMB)}})
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		made = append(made, box.ID)
		return nil
	})
	defer func() { err = s.remove(ctx, made, err) }()
	if err != nil {
		return err
	}
	if err := s.rest(ctx); err != nil {
		return err
	}
	after, err := s.meter.memory()
	if err != nil {
		return err
	}
	r, err := newRow(s.group.Name, "stateful sandboxes made", language, fmt.Sprintf("%d clients", makers), sample)
	if err != nil {
		return err
	}
	r.Figure, r.Note = after.each(before, n)
	r.atMost("MB a machine", 6, r.Figure.Value)
	if n >= 1000 {
		r.atMost("MB for 1,000", 8192, r.Figure.Value*1000)
	}
	s.put(&r)
	return nil
}

// remove deletes sandboxes, also when the bench is interrupted; it adds to err.
func (s *session) remove(ctx context.Context, ids []string, err error) error {
	for _, id := range ids {
		if gone := s.server.Client.Delete(context.WithoutCancel(ctx), id); gone != nil && err == nil {
			err = fmt.Errorf("delete: %w", gone)
		}
	}
	return err
}

// each is what one of n machines has more in the one reading than in the other. What the kernel holds for a machine in
// nobody's name (mounts, loop devices, control groups) shows in the host's sums alone.
func (after memory) each(before memory, n int) (*Figure, string) {
	mb := func(bytes int64) float64 { return float64(bytes) / (1 << 20) / float64(n) }
	machines, server := after.machines.All-before.machines.All, after.server-before.server
	kernel := after.kernel - before.kernel - (after.machines.Kernel - before.machines.Kernel)
	return &Figure{Unit: "MB a machine", Value: rounded(mb(machines + server + max(0, kernel)))},
		fmt.Sprintf("control groups %.2f (the kernel's for them %.2f), server %.2f, kernel beside %.2f; the host's available memory fell by %.2f",
			mb(machines), mb(after.machines.Kernel-before.machines.Kernel), mb(server), mb(kernel), mb(before.free-after.free))
}
