/* gateway-relay: the process that moves the bytes of relayed connections. */
int main(void)
{
	return 0;
}
