package pool

import (
	"fmt"
	"os"
	"strings"
)

// HostIsLow says whether less than a tenth of the host's memory is available. Source: proc_meminfo(5), MemAvailable.
func HostIsLow() bool {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return false
	}
	var total, available int64
	for line := range strings.Lines(string(b)) {
		_, _ = fmt.Sscanf(line, "MemTotal: %d kB", &total)
		_, _ = fmt.Sscanf(line, "MemAvailable: %d kB", &available)
	}
	return total > 0 && available < total/10
}
