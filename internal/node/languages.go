package node

// language is how code of a language is run.
type language struct {
	interpreter []string
	file        string
}

var languages = map[string]language{
	"python": {[]string{"python3"}, "main.py"},
	"bash":   {[]string{"bash"}, "main.sh"},
}
