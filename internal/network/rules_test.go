package network

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestAnAddressIsANamesForATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := newRules(Egress{Mode: Allow, Allow: []string{"a.example:80"}})
		if err != nil {
			t.Fatal(err)
		}
		to := netip.MustParseAddrPort("93.184.216.34:80")
		r.learn("a.example", []netip.Addr{to.Addr()}, time.Minute)
		time.Sleep(time.Minute + keepNamed - time.Second)
		if r.judge(to) != byName {
			t.Error("it is forgotten too early")
		}
		time.Sleep(2 * time.Second)
		if r.judge(to) != refused {
			t.Error("it is never forgotten")
		}
		r.learn("a.example", []netip.Addr{to.Addr()}, 1000*time.Hour)
		time.Sleep(mostNamed)
		if r.judge(to) != refused {
			t.Error("an answer's time to live has no bound")
		}
	})
}

func TestNamesRememberedAreBounded(t *testing.T) {
	r, err := newRules(Egress{Mode: Allow, Allow: []string{"*.a.example", "*.example"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxNamed {
		a := netip.AddrFrom4([4]byte{8, byte(i >> 16), byte(i >> 8), byte(i)})
		r.learn(fmt.Sprintf("n%d.a.example", i), []netip.Addr{a, netip.MustParseAddr("9.9.9.9")}, time.Minute)
		if len(r.named) > maxNamed || len(r.named[a]) != 2 {
			t.Fatalf("after %d names: %d addresses, %d grants", i, len(r.named), len(r.named[a]))
		}
	}
}
