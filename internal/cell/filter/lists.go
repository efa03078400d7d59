package filter

import "strings"

// base is what every program may call. Left out on purpose, so that they answer EPERM: mounts in every form, new
// namespaces, bpf, perf, io_uring, userfaultfd, keys, modules, kexec, clocks, quotas, file handles (which walk around
// directories), asynchronous I/O (io_setup: one program could take all contexts of the host, fs.aio-max-nr), and what only
// a debugger of other users' processes wants.
var base = strings.Fields(`
	read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn
	ioctl pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore madvise shmget shmat shmctl
	dup dup2 pause nanosleep getitimer alarm setitimer getpid sendfile connect accept sendto recvfrom sendmsg recvmsg
	shutdown bind listen getsockname getpeername setsockopt getsockopt fork vfork execve exit wait4 kill uname semget
	semop semctl shmdt fcntl flock fsync fdatasync truncate ftruncate getdents getcwd chdir fchdir rename mkdir rmdir
	creat link unlink symlink readlink chmod fchmod chown fchown lchown umask gettimeofday getrlimit getrusage sysinfo
	times ptrace getuid getgid setuid setgid geteuid getegid setpgid getppid getpgrp setsid setreuid setregid getgroups
	setgroups setresuid getresuid setresgid getresgid getpgid setfsuid setfsgid getsid capget capset rt_sigpending
	rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack utime statfs fstatfs getpriority sched_getparam
	sched_getscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval mlock munlock mlockall
	munlockall prctl arch_prctl setrlimit sync gettid readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr
	listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr tkill time futex sched_setaffinity
	sched_getaffinity epoll_create getdents64 set_tid_address restart_syscall semtimedop fadvise64 timer_create
	timer_settime timer_gettime timer_getoverrun timer_delete clock_gettime clock_getres clock_nanosleep exit_group
	epoll_wait epoll_ctl tgkill utimes waitid ioprio_get inotify_init inotify_add_watch inotify_rm_watch openat mkdirat
	fchownat futimesat newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll
	set_robust_list get_robust_list sync_file_range utimensat epoll_pwait signalfd timerfd_create eventfd fallocate
	timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev
	rt_tgsigqueueinfo recvmmsg prlimit64 syncfs sendmmsg getcpu sched_getattr renameat2 seccomp getrandom memfd_create
	execveat membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx rseq
	pidfd_send_signal pidfd_open close_range openat2 faccessat2 epoll_pwait2 landlock_create_ruleset landlock_add_rule
	landlock_restrict_self process_mrelease futex_waitv cachestat fchmodat2 map_shadow_stack futex_wake futex_wait
	futex_requeue lsm_get_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat removexattrat
`)

// narrowedAway is what preset maximum takes away besides: calls that ordinary programs live without and that reach far
// into other processes, memory policy or scheduling.
var narrowedAway = strings.Fields(`
	process_vm_readv process_vm_writev process_madvise personality chroot mknod mknodat mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr msgget
	msgsnd msgrcv msgctl mbind set_mempolicy get_mempolicy set_mempolicy_home_node sched_setscheduler sched_setattr
	sched_setparam ioprio_set setpriority remap_file_pages vmsplice tee splice
`)

// wide is what preset development adds: what package managers and debuggers of one's own processes use.
var wide = strings.Fields(`kcmp modify_ldt name_to_handle_at`)
