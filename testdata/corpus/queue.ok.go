package main

import (
	"container/heap"
	"fmt"
	"os"
	"sync"
)

type ints []int

func (h ints) Len() int           { return len(h) }
func (h ints) Less(i, j int) bool { return h[i] < h[j] }
func (h ints) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *ints) Push(x any)        { *h = append(*h, x.(int)) }
func (h *ints) Pop() any          { x := (*h)[len(*h)-1]; *h = (*h)[:len(*h)-1]; return x }

func main() {
	var mu sync.Mutex
	var group sync.WaitGroup
	h := &ints{}
	for i := range 100 {
		group.Add(1)
		go func() {
			defer group.Done()
			mu.Lock()
			defer mu.Unlock()
			heap.Push(h, 99-i)
		}()
	}
	group.Wait()
	for want := range 100 {
		if got := heap.Pop(h); got != want {
			fmt.Fprintln(os.Stderr, got, want)
			os.Exit(1)
		}
	}
}
