package strict

import "strings"

// Nearest is the known word that a person most likely meant by word, "" where none is near.
func Nearest(word string, known []string) string {
	best, most := "", 1+len(word)/4
	if len(word) > 64 {
		return ""
	}
	for _, k := range known {
		if strings.HasPrefix(k, word+"_") { // the unit was forgotten
			return k
		}
		if d := distance(word, k); d <= most {
			best, most = k, d-1
		}
	}
	return best
}

// distance counts the letters to insert, drop or replace (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
