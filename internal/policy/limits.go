package policy

import (
	"cmp"
	"strconv"

	"outpost.run/outpost/sandbox"
)

// limits fills in the defaults, and notes what lies over the operator's maximum.
func (p Policy) limits(r *sandbox.LimitsRequest, faults *sandbox.Faults) sandbox.Limits {
	l := p.Defaults
	if r == nil {
		return l
	}
	const within = "the operator's maximum"
	pick(&l.MemoryMB, r.MemoryMB, p.Maximum.MemoryMB, "memory_mb", within, faults)
	pick(&l.CPUCores, r.CPUCores, p.Maximum.CPUCores, "cpu_cores", within, faults)
	pick(&l.TimeoutMS, r.TimeoutMS, p.Maximum.TimeoutMS, "timeout_ms", within, faults)
	pick(&l.DiskMB, r.DiskMB, p.Maximum.DiskMB, "disk_mb", within, faults)
	pick(&l.Pids, r.Pids, p.Maximum.Pids, "pids", within, faults)
	l.GPU = r.GPU
	return l
}

// lower gives an exec the sandbox's limits, lowered by what it asks for. Its time alone may be longer than the
// sandbox's, up to the operator's maximum; timeout_secs wins over timeout_ms.
func (p Policy) lower(of sandbox.Limits, r *sandbox.LimitsRequest, timeoutSecs *int, faults *sandbox.Faults) sandbox.Limits {
	l := of
	if r != nil {
		const within = "the sandbox's limit; an exec may only lower it"
		pick(&l.MemoryMB, r.MemoryMB, of.MemoryMB, "memory_mb", within, faults)
		pick(&l.CPUCores, r.CPUCores, of.CPUCores, "cpu_cores", within, faults)
		pick(&l.DiskMB, r.DiskMB, of.DiskMB, "disk_mb", within, faults)
		pick(&l.Pids, r.Pids, of.Pids, "pids", within, faults)
		pick(&l.TimeoutMS, r.TimeoutMS, p.Maximum.TimeoutMS, "timeout_ms", "the operator's maximum", faults)
	}
	if timeoutSecs != nil {
		if *timeoutSecs > p.Maximum.TimeoutMS/1000 {
			faults.Add("timeout_secs", "is over the operator's maximum (%d)", p.Maximum.TimeoutMS/1000)
		} else {
			l.TimeoutMS = *timeoutSecs * 1000
		}
	}
	return l
}

func pick[T int | float64](limit *T, asked *T, most T, name, within string, faults *sandbox.Faults) {
	switch {
	case asked == nil:
	case cmp.Compare(*asked, most) > 0:
		faults.Add("resource_limits."+name, "is over %s (%s)", within, strconv.FormatFloat(float64(most), 'f', -1, 64))
	default:
		*limit = *asked
	}
}
