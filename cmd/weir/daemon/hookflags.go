package daemon

import (
	"fmt"
	"slices"

	"weir/capacity"
)

// provisionRegions returns the regions of --provision-region, by default the
// node's own.
func provisionRegions(given []string, own string) ([]string, error) {
	if len(given) == 0 {
		given = []string{own}
	}
	regions := slices.Compact(slices.Sorted(slices.Values(given)))
	const most = 32
	if len(regions) > most {
		return nil, fmt.Errorf("--provision-region: %d regions, at most %d", len(regions), most)
	}
	for _, r := range regions {
		if len(r) > capacity.MaxLabel {
			return nil, fmt.Errorf("--provision-region %s: a region has at most %d bytes", r, capacity.MaxLabel)
		}
	}
	return regions, nil
}
